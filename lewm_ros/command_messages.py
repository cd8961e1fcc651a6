"""Message classes by name, and the contract's command message."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.contract import Contract
from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import complete_trajectory
from lewm_core.errors import ContractError
from lewm_ros.stamps import ns_to_stamp


def message_class(type_name: str) -> type:
    """Return the class of a message type such as ``geometry_msgs/msg/TwistStamped``.

    Raises:
        ContractError: The package with this message is not installed.
    """
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"message type {type_name} is not installed: install ROS package {package!r}"
        ) from error


class CommandWriter:
    """Writes the action vector into the contract's command message."""

    def __init__(self, contract: Contract) -> None:
        """Check that every field can be written.

        Raises:
            ContractError: The message type is not installed or has no such field.
        """
        action = contract.action
        self.message_type = message_class(action.message)
        self._frame_id = action.frame_id
        self._contract = contract
        self._selectors = [FieldSelector.parse(field.selector) for field in action.fields]
        self._has_header = hasattr(self.message_type(), "header")
        try:
            self.write(np.zeros(len(self._selectors)), 0)
        except (LookupError, TypeError, AssertionError) as error:
            raise ContractError(f"action fields of {action.message}: {error}") from error

    def write(self, values: NDArray[np.float64], now_ns: int) -> Any:
        """Return a new command message.

        Args:
            values: ``(A,)`` in the contract's units.
            now_ns: ROS time, for the header where there is one.
        """
        message = self.message_type()
        if self._has_header:
            message.header.stamp = ns_to_stamp(max(0, now_ns))
            message.header.frame_id = self._frame_id
        for selector, value in zip(self._selectors, values, strict=True):
            selector.set(message, float(value), lambda name: message_class(name)())
        contract = self._contract
        complete_trajectory(
            message, contract.action_names, contract.control_period, contract.stops(values)
        )
        return message
