"""One discipline for all nodes of this package: managed nodes (ROS 2 design, "Managed nodes").

*Configure* makes everything and fails loudly, with one line in the log; *activate* begins;
*deactivate* falls silent; *cleanup* frees what configure made. Whatever ends a node (a transition,
an error, a signal) goes the same way: deactivate, then free.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from lewm_core.errors import UserError
from lewm_ros.parameters import (
    Change,
    Declaration,
    as_declared,
    declare_parameters,
    read_parameters,
    why_refused,
)
from lewm_ros.runtime import end_node, log_parameters

_Transition = Callable[["ManagedNode", LifecycleState], TransitionCallbackReturn]

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE
_ERROR = TransitionCallbackReturn.ERROR


def _logged(transition: _Transition) -> _Transition:
    """Log what a transition raises: rclpy goes to `on_error` without a word."""

    @functools.wraps(transition)
    def logged(node: ManagedNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(traceback.format_exc())
            raise

    return logged


def autostart(default: bool) -> Declaration:
    """Return the declaration of the parameter that every node has.

    Args:
        default: False for what can move a robot.
    """
    return Declaration(
        "autostart", default,
        "Configure and activate without a lifecycle manager; end with status 1 if that fails.",
        Change.START,
    )  # fmt: skip


class ManagedNode(LifecycleNode):
    """A lifecycle node; subclasses fill in `configure`, `activate`, `deactivate` and `tell`.

    Args:
        name: Of the node.
        options: Of `rclpy.node.Node`.

    Attributes:
        label: What sentences call it: "the planner".
        declarations: Its parameters; with `autostart`.

    Raises:
        ConfigError: A parameter given at start cannot be used.
    """

    label: ClassVar[str]
    declarations: ClassVar[Sequence[Declaration]]

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        declare_parameters(self, self.declarations)
        self._settings = self.read_settings()
        self._configured = self._active = False
        self._failure: UserError | None = None
        self._made = contextlib.ExitStack()
        self.add_on_set_parameters_callback(self._on_check_parameters)
        self.add_post_set_parameters_callback(self._on_parameters)
        if self.get_parameter("autostart").value:
            # In the executor, as a lifecycle manager's request would be.
            self._start_timer = self.create_timer(
                0.0, self._on_autostart, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    # --- what a node fills in -------------------------------------------------------------------

    def read_settings(self) -> Any:
        """Return the values of all parameters, by default as a dictionary."""
        return read_parameters(self, self.declarations)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Judge values together, before configure and before a change of a configured node.

        Raises:
            ConfigError: They do not fit, naming the parameter.
        """

    def configure(self) -> None:
        """Make everything that is needed, each thing with a `free_later`; publish nothing.

        Raises:
            UserError: It cannot be made. What was made is freed.
            OSError: Likewise.
        """

    def activate(self) -> None:
        """Begin.

        Raises:
            UserError: It must not begin; raised before anything has begun.
            OSError: Likewise.
        """

    def deactivate(self, reason: str) -> None:
        """End what `activate` began, and fall silent. Called once for each activation."""

    def tell(self, reason: str) -> None:
        """Say to whoever watches why this node is not active."""

    def apply_changes(self, names: set[str]) -> None:
        """Do what follows from changed parameters, while configured."""

    # --- what it offers them --------------------------------------------------------------------

    def free_later(self, free: Callable[..., Any], *arguments: Any) -> None:
        """Call ``free(*arguments)`` in cleanup, the newest first."""
        self._made.callback(free, *arguments)

    def make_publisher(self, kind: type, topic: str, profile: QoSProfile) -> LifecyclePublisher:
        """Return a publisher that is silent unless the node is active; freed in cleanup."""
        publisher = self.create_lifecycle_publisher(kind, topic, profile)
        self.free_later(self.destroy_lifecycle_publisher, publisher)
        return publisher

    def make_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> Subscription:
        """Return a subscription that is freed in cleanup."""
        subscription = self.create_subscription(kind, topic, callback, profile)
        self.free_later(self.destroy_subscription, subscription)
        return subscription

    def make_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Answer a service until cleanup."""
        self.free_later(self.destroy_service, self.create_service(kind, name, callback))

    def make_client(self, kind: type, name: str) -> Client:
        """Return a service's client that is freed in cleanup."""
        client = self.create_client(kind, name)
        self.free_later(self.destroy_client, client)
        return client

    def close(self) -> None:
        """Deactivate and free everything; called when the process ends, whatever ends it."""
        self._leave(f"{self.label}'s process ends")
        self.tell("the process ended")
        self._free()

    # --- transitions ----------------------------------------------------------------------------

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make everything; on failure the reason is in the log."""
        self._failure = None
        self._settings = self.read_settings()
        log_parameters(self)
        try:
            self.check(read_parameters(self, self.declarations))
            self.configure()
        except Exception as error:
            self._free()
            return self._report_failure("configure failed", error)
        self._configured = True
        self.tell("configured, not active")
        return super().on_configure(state)

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin; on refusal the reason is in the log, and the node stays inactive."""
        self._failure = None
        result = super().on_activate(state)
        self._active = True
        try:
            self.activate()
        except (UserError, OSError) as error:
            self._active = False
            super().on_deactivate(state)
            return self._report_failure("activate refused", error)
        except Exception as error:
            # Nobody knows how far it came: `on_error` takes everything down.
            self._report_failure("activate failed", error)
            return _ERROR
        self.get_logger().info("active")
        return result

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End what is under way, and fall silent."""
        self._leave(f"{self.label} was deactivated")
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure made."""
        self._free()
        self.tell("not configured")
        return super().on_cleanup(state)

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate if active, and free everything."""
        self._leave(f"{self.label} was shut down")
        self._free()
        self.tell("shut down")
        return super().on_shutdown(state)

    @_logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: free everything, back to unconfigured."""
        self.get_logger().error(
            f"a lifecycle transition failed; {self.label} is unconfigured now"
        )
        self._leave("a lifecycle transition failed")
        self._free()
        self.tell("a lifecycle transition failed")
        return _SUCCESS

    def _on_autostart(self) -> None:
        self._start_timer.cancel()
        for trigger, done in (
            (self.trigger_configure, "configured"), (self.trigger_activate, "activated")
        ):  # fmt: skip
            if trigger() != _SUCCESS:
                unknown = UserError(f"{self.label} could not be {done}; see its log")
                end_node(1, self._failure or unknown)
                return

    def _leave(self, reason: str) -> None:
        if not self._active:
            return
        try:
            self.deactivate(reason)
        finally:
            self._active = False
        self.tell("configured, not active")
        self.get_logger().info(f"not active any more: {reason}")

    def _free(self) -> None:
        self._configured = False
        self._made.close()

    def _report_failure(self, what: str, error: Exception) -> TransitionCallbackReturn:
        """Tell why a transition failed: in the log, to whoever watches, to `_on_autostart`."""
        if isinstance(error, UserError | OSError):
            text = str(error)
        else:
            self.get_logger().error(traceback.format_exc())
            text = f"{type(error).__name__}: {error}"
        self._failure = error if isinstance(error, UserError) else UserError(text)
        line = " ".join(text.split())
        self.get_logger().error(f"{what}: {line}")
        self.tell(f"{what}: {line}")
        return _FAILURE

    # --- parameters -----------------------------------------------------------------------------

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all of them, or none and say why; the parameter services come here."""
        changes, problem = as_declared(self, parameter_list)
        if problem:
            return SetParametersResult(successful=False, reason=problem)
        return super().set_parameters_atomically(changes)

    def _on_check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        reason = why_refused(
            self.declarations, changes, self.label,
            configured=self._configured, active=self._active,
        )  # fmt: skip
        if not reason and self._configured:
            new = {change.name: change.value for change in changes}
            try:
                self.check(read_parameters(self, self.declarations) | new)
            except UserError as error:
                reason = " ".join(str(error).split())
        return SetParametersResult(successful=not reason, reason=reason)

    def _on_parameters(self, changes: list[Parameter]) -> None:
        self._settings = self.read_settings()
        if self._configured:
            self.apply_changes({change.name for change in changes})
