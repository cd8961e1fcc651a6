"""Field selectors: ``twist.linear.x``, ``data[0]``, ``points[0].positions[2]``.

A selector names one number inside a message. It works on the messages of rclpy and on those of
rosbags, and is checked against the message definition before any message is there.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from lewm_core.data.messages import (
    NUMERIC_TYPES,
    field_types,
    make_message,
    type_name_of,
    typestore,
)
from lewm_core.errors import ContractError
from lewm_core.validation import suggestion

_STEP = re.compile(r"([A-Za-z][A-Za-z0-9_]*)((?:\[\d+\])?)")
#: A longer list than this in a command is a slip of the pen, not a robot.
_LARGEST_INDEX = 4095

MakeMessage = Callable[[str], Any]


@dataclass(frozen=True)
class FieldSelector:
    """One number inside a message.

    Attributes:
        text: As written in the contract.
        steps: Field name and index (None for a field that is not a list), outermost first.
    """

    text: str
    steps: tuple[tuple[str, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Parse a selector.

        Raises:
            ContractError: The text is not a selector.
        """
        steps = []
        for part in text.split("."):
            match = _STEP.fullmatch(part)
            if match is None:
                raise ContractError(
                    f"selector {text!r} is not understood; write it like 'twist.linear.x', "
                    "'data[0]' or 'points[0].positions[2]'"
                )
            index = int(match[2][1:-1]) if match[2] else None
            if index is not None and index > _LARGEST_INDEX:
                raise ContractError(f"selector {text!r}: index {index} is above {_LARGEST_INDEX}")
            steps.append((match[1], index))
        return cls(text, tuple(steps))

    def check(self, type_name: str, store: Typestore | None = None) -> None:
        """Check that the selector reaches a number in messages of ``type_name``.

        Raises:
            ContractError: Unknown type, unknown field (the nearest is named), an index that is
                missing, out of range or on something that is not a list, or not a number.
        """
        chosen = store or typestore()
        current = type_name
        for position, (name, index) in enumerate(self.steps):
            fields = field_types(current, chosen)
            if name not in fields:
                raise ContractError(
                    f"selector {self.text!r}: {current} has no field {name!r}; "
                    + suggestion(name, fields)
                )
            kind, detail = fields[name]
            if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
                if index is None:
                    raise ContractError(
                        f"selector {self.text!r}: {name!r} is a list; write {name}[0]"
                    )
                element, count = detail
                if count and index >= count:
                    raise ContractError(
                        f"selector {self.text!r}: {name!r} has {count} elements, "
                        f"so its last is [{count - 1}]"
                    )
                kind, detail = element
            elif index is not None:
                raise ContractError(f"selector {self.text!r}: {name!r} is not a list; drop [...]")
            last = position == len(self.steps) - 1
            if kind == Nodetype.NAME:
                if last:
                    inner = ", ".join(f"{name}.{field}" for field in field_types(detail, chosen))
                    raise ContractError(
                        f"selector {self.text!r} ends at a {detail}; go on to one of {inner}"
                    )
                current = detail
            elif not last:
                raise ContractError(
                    f"selector {self.text!r}: {name!r} has no fields; end the selector there"
                )
            elif detail[0] not in NUMERIC_TYPES:
                raise ContractError(
                    f"selector {self.text!r} is a {detail[0]}, but must be a number"
                )

    def get(self, message: Any) -> float:
        """Return the selected number.

        Raises:
            LookupError: The message's list is too short for the index.
        """
        value = message
        try:
            for name, index in self.steps:
                value = getattr(value, name)
                if index is not None:
                    value = value[index]
            return float(value)
        except (IndexError, AttributeError, TypeError, ValueError) as error:
            raise LookupError(f"{self.text!r} is not in the message: {error}") from error

    def set(self, message: Any, value: float, make: MakeMessage | None = None) -> None:
        """Write the selected number; lists that are too short grow (with zeros).

        Args:
            message: An rclpy or rosbags message; changed in place.
            value: In the contract's unit.
            make: Makes an empty message of a type name, for lists of messages that must grow.
                Default: rosbags messages. rclpy callers pass one that imports the class.

        Raises:
            LookupError: The message has no such field.
        """
        current = message
        last = len(self.steps) - 1
        for position, (name, index) in enumerate(self.steps):
            if not hasattr(current, name):
                raise LookupError(f"{self.text!r}: {type_name_of(current)} has no {name!r}")
            if index is None:
                if position == last:
                    setattr(current, name, _as_type_of(getattr(current, name), value))
                else:
                    current = getattr(current, name)
                continue
            _grow(current, name, index + 1, make or make_message)
            sequence = getattr(current, name)
            if position == last:
                sequence[index] = _as_type_of(sequence[index], value)
            else:
                current = sequence[index]


def _as_type_of(present: Any, value: float) -> Any:
    """Convert ``value`` to the type of the field: rclpy refuses a float in an integer field."""
    if isinstance(present, bool | np.bool_):
        return bool(value)
    if isinstance(present, int | np.integer):
        return round(value)
    return float(value)


def _grow(owner: Any, name: str, length: int, make: MakeMessage) -> None:
    """Make the list ``owner.name`` at least ``length`` long, and writable."""
    sequence = getattr(owner, name)
    missing = length - len(sequence)
    if isinstance(sequence, array):
        sequence.extend([0] * max(missing, 0))
    elif isinstance(sequence, np.ndarray):
        if missing > 0:
            setattr(owner, name, np.concatenate([sequence, np.zeros(missing, sequence.dtype)]))
        elif not sequence.flags.writeable:
            setattr(owner, name, sequence.copy())
    elif missing > 0:
        element = field_types(type_name_of(owner))[name][1][0]
        # rclpy checks a list on assignment only, so it grows by assignment of a longer one.
        added = [
            make(element[1]) if element[0] == Nodetype.NAME else 0 for _ in range(missing)
        ]
        setattr(owner, name, [*sequence, *added])
