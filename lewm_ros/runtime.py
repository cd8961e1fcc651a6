"""How every node of this package starts, spins and ends.

One teardown path for SIGINT, SIGTERM, an error and a node that has finished: the executor is
shut down and its thread joined, the node's own ``close()`` runs while it can still publish,
then the node is destroyed and rclpy shut down; a middleware that does not let go is ended hard.
rclpy's own signal handlers invalidate the context at once, so that nothing could be published any
more (a hold command, say); they are not installed here.
"""

from __future__ import annotations

import difflib
import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lewm_core.errors import ConfigError, UserError
from lewm_ros.dds import apply_profile
from lewm_ros.missing import require_ros, ros_imports

__all__ = [
    "RCLPY_PARAMETERS", "declare", "end_node", "log_parameters", "nearest", "require_ros",
    "ros_imports", "run_node", "run_nodes",
]  # fmt: skip

#: Parameters that rclpy itself declares or reads.
RCLPY_PARAMETERS = ("use_sim_time", "start_type_description_service")

_JOIN_TIMEOUT_S = 10.0

#: s for the middleware to let go of a node; then the process ends with status 1 and the stacks of
#: its threads on stderr. Less than the 15 s that launch files give before SIGTERM and SIGKILL.
_DESTROY_TIMEOUT_S = 10.0


class _Stop:
    """The process's wish to end: an event, a status and perhaps an error."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.status = 0
        self.error: BaseException | None = None

    def request(self, status: int = 0, error: BaseException | None = None) -> None:
        if not self.event.is_set():
            self.status, self.error = status, error
            self.event.set()


# One per process, as signals are.
_stop = _Stop()


def end_node(status: int = 0, error: BaseException | None = None) -> None:
    """End this process's node cleanly; from any thread, any number of times.

    Args:
        status: Exit status of the process.
        error: Why, if it is an error: a `UserError` is shown as one line, another one with its
            traceback; the status is then 1.
    """
    _stop.request(status, error)


def run_node(
    factory: Callable[[], Any], argv: Sequence[str] | None = None, *, threads: int = 1
) -> int:
    """Make a node, spin it until a signal or `end_node`, and tear it down.

    Args:
        factory: Returns the node (`rclpy.node.Node`); called after ``rclpy.init``. Its docstring
            is what ``--help`` shows. If the node has ``close()``, it is called after the
            executor has stopped and before the node is destroyed: the last chance to publish or
            to finish a file.
        argv: The command line; default ``sys.argv``. ``--ros-args ...`` goes to rclpy;
            ``--debug`` shows a traceback on errors.
        threads: Of the executor; 1 is a single-threaded one.

    Returns:
        Exit status: 0 after SIGINT, SIGTERM or a node that finished, 1 after an error.
    """
    return run_nodes([factory], argv, threads=threads, help_text=factory.__doc__ or "")


def run_nodes(
    factories: Sequence[Callable[[], Any]],
    argv: Sequence[str] | None = None,
    *,
    threads: int = 1,
    help_text: str = "",
) -> int:
    """Run several nodes in this process, each spun by an executor of its own; see `run_node`.

    The process ends when one of them ends. They are closed in the order of ``factories``.

    Args:
        factories: Each returns a node.
        argv: The command line; default ``sys.argv``.
        threads: Of each executor.
        help_text: What ``--help`` shows.

    Returns:
        Exit status, as `run_node`.
    """
    require_ros(getattr(factories[0], "__module__", "lewm_ros"))
    arguments = list(sys.argv if argv is None else argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end_node())
    try:
        debug, shown = _own_arguments(arguments, help_text)
        if shown:
            return 0
        apply_profile()
        status, error = _run(factories, arguments, threads)
    except Exception as raised:
        status, error = 1, raised
        debug = "--debug" in arguments
    if error is not None:
        _show(error, debug)
        return 1
    return status


def declare(
    node: Any,
    name: str,
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
    read_only: bool = True,
) -> Any:
    """Declare a parameter with its description and range, and return its value.

    Args:
        node: The node.
        name: Of the parameter.
        default: Its default; gives the type.
        description: One sentence with the unit.
        minimum: Smallest value allowed, for numbers (default: no limit).
        maximum: Largest value allowed, for numbers (default: no limit).
        choices: Values allowed, for text.
        read_only: Whether it can be set at start only.

    Raises:
        ConfigError: If the value given at start has another type or is out of range.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.exceptions import ParameterException

    descriptor = ParameterDescriptor(
        description=description + (f" One of: {', '.join(choices)}." if choices else ""),
        read_only=read_only,
        additional_constraints="|".join(choices),
    )
    if minimum is not None or maximum is not None:
        low = -1e308 if minimum is None else minimum
        high = 1e308 if maximum is None else maximum
        if isinstance(default, float):
            limits = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range.append(limits)
        else:
            low, high = max(int(low), -(2**63)), min(int(high), 2**63 - 1)
            descriptor.integer_range.append(IntegerRange(from_value=low, to_value=high))
    if isinstance(default, float):
        _accept_whole_number(node, name)
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except ParameterException as error:
        raise ConfigError(f"parameter {name}: {error} ({description})") from error
    if choices and value not in choices:
        raise ConfigError(
            f"parameter {name}: {value!r} is not one of {', '.join(choices)}"
            + nearest(str(value), choices)
        )
    return value


def log_parameters(node: Any) -> None:
    """Log every parameter with its value: no hidden default."""
    for name in sorted(node._parameters):
        node.get_logger().info(f"parameter {name}: {node.get_parameter(name).value!r}")


def _accept_whole_number(node: Any, name: str) -> None:
    """Let ``-p rate:=30`` mean 30.0: the command line's 30 is an integer to rclpy."""
    from rclpy.parameter import Parameter

    override = node._parameter_overrides.get(name)
    if override is not None and override.type_ == Parameter.Type.INTEGER:
        node._parameter_overrides[name] = Parameter(name, value=float(override.value))


def _run(
    factories: Sequence[Callable[[], Any]], arguments: list[str], threads: int
) -> tuple[int, BaseException | None]:
    """Do the work of `run_nodes` between parsing and reporting."""
    import rclpy
    from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    nodes: list[Any] = []
    spun: list[tuple[Any, threading.Thread]] = []
    try:
        for factory in factories:
            nodes.append(factory())
            _check_overrides(nodes[-1])
        for node in nodes:
            executor = (
                SingleThreadedExecutor()
                if threads == 1
                else MultiThreadedExecutor(num_threads=threads)
            )
            executor.add_node(node)
            thread = threading.Thread(
                target=_spin, args=(executor,), name="executor", daemon=True
            )
            spun.append((executor, thread))
            thread.start()
        # Python runs signal handlers in the main thread only, which must not sit in the
        # middleware's wait: an event's wait is interrupted by them.
        _stop.event.wait()
        for executor, thread in spun:
            executor.shutdown(timeout_sec=_JOIN_TIMEOUT_S)
            thread.join(_JOIN_TIMEOUT_S)
    except Exception as error:
        end_node(1, error)
    finally:
        # From here on a second signal changes nothing: end_node has been called.
        for node in nodes:
            _close(node)
        # All that a node owes is done. Fast DDS has been seen to wait for ever in what follows;
        # this thread is not Python's, so it ends the process whatever holds the interpreter.
        faulthandler.dump_traceback_later(_DESTROY_TIMEOUT_S, exit=True)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
        faulthandler.cancel_dump_traceback_later()
    return _stop.status, _stop.error


def _close(node: Any) -> None:
    try:
        if hasattr(node, "close"):
            node.close()
    except Exception as error:
        _stop.error = _stop.error or error


def _spin(executor: Any) -> None:
    from rclpy.executors import ExternalShutdownException

    try:
        executor.spin()
    except ExternalShutdownException:
        end_node()
    except Exception as error:
        end_node(1, error)


def _check_overrides(node: Any) -> None:
    """Refuse parameters on the command line that the node does not have.

    rclpy ignores them silently, so a misspelt name would mean the default.

    Raises:
        ConfigError: Naming the parameter and the nearest one.
    """
    for name in node._parameter_overrides:
        if node.has_parameter(name) or name in RCLPY_PARAMETERS or name.startswith("qos_"):
            continue
        known = [known for known in node._parameters if known not in RCLPY_PARAMETERS]
        raise ConfigError(
            f"parameter {name}: {node.get_name()} has no such parameter" + nearest(name, known)
        )


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the end of a message about a word that is not known: the nearest, or all there are."""
    matches = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else f"; it has {', '.join(sorted(known))}"


def _own_arguments(arguments: list[str], help_text: str) -> tuple[bool, bool]:
    """Look at what comes before ``--ros-args``.

    Returns:
        Whether ``--debug`` was given, and whether the help was shown.

    Raises:
        UserError: For an argument that is not known.
    """
    own = arguments[1:]
    if "--ros-args" in own:
        start = own.index("--ros-args")
        end = own.index("--", start) + 1 if "--" in own[start:] else len(own)
        own = own[:start] + own[end:]
    if "--help" in own or "-h" in own:
        print(help_text.strip())
        print("\nusage: ... [--debug] --ros-args -p NAME:=VALUE -r FROM:=TO")
        return False, True
    unknown = [argument for argument in own if argument != "--debug"]
    if unknown:
        raise UserError(
            f"argument {unknown[0]!r} is not known: parameters go after --ros-args, "
            "as in --ros-args -p NAME:=VALUE"
        )
    return "--debug" in own, False


def _show(error: BaseException, debug: bool) -> None:
    """Print an error: one line for what a user can mend, a traceback otherwise."""
    if debug or not _is_users(error):
        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    else:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def _is_users(error: BaseException) -> bool:
    """Return whether the user can mend it: a wrong value, file, name or command line."""
    if isinstance(error, UserError | OSError):
        return True
    # rclpy's own: a bad --ros-args, an invalid name or namespace.
    return type(error).__name__ in (
        "RCLError",
        "UnknownROSArgsError",
        "InvalidNamespaceException",
        "InvalidNodeNameException",
        "InvalidTopicNameException",
        "NameValidationException",
    )
