"""ROS message types without ROS: the definitions of Jazzy and of this package, by rosbags.

The same definitions check a contract's field selectors, travel with the bags that are written,
and decode the bags that are read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import normalize_fieldname
from rosbags.typesys.store import Typestore

from lewm_core.errors import BagError, ConfigError
from lewm_core.paths import find_shared

_LOGGER = logging.getLogger(__name__)

#: For how long a trajectory goes on after the next is due, in control periods; docs/first-robot.md
#: says why, benchmarks/trajectory_jitter.py what less and more would do.
TRAJECTORY_OVERLAP = 0.5

#: Base types that a contract may select from, and the numpy types of their sequences.
NUMERIC_TYPES = {
    "bool": "bool",
    "byte": "uint8",
    "char": "uint8",
    "float32": "float32",
    "float64": "float64",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
}


def make_typestore() -> Typestore:
    """Return a new type store with the message types of ROS 2 Jazzy and of ``lewm_ros``."""
    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        folder = find_shared("msg")
    except ConfigError as error:
        # Only bags with this package's own messages need them; everything else goes on.
        _LOGGER.info("definitions of lewm_ros messages are not at hand: %s", error)
        return store
    for path in sorted(folder.glob("*.msg")):
        name = f"lewm_ros/msg/{path.stem}"
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), name))
    return store


def add_type(store: Typestore, type_name: str, definition: str | None = None) -> None:
    """Add a message type, and the types inside it, to ``store``.

    Args:
        store: Changed in place, unless the type is there already.
        type_name: ``package/msg/Name``.
        definition: The text of the ``.msg`` file, with the definitions of inner types behind it
            as bags carry them. Default: the ``.msg`` files of the ROS packages on
            ``AMENT_PREFIX_PATH`` (they are read as text; ROS itself is not needed).

    Raises:
        BagError: The definition is nowhere to be found.
        rosbags.typesys.TypesysError: The definition cannot be parsed.
    """
    if definition is not None:
        store.register(get_types_from_msg(definition, type_name))
    wanted = [type_name]
    while wanted:
        name = wanted.pop()
        if name not in store.fielddefs:
            store.register(get_types_from_msg(_installed_definition(name), name))
        wanted += [inner for inner in _inner_types(name, store) if inner not in store.fielddefs]


def _installed_definition(type_name: str) -> str:
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "share" / package / "msg" / f"{name}.msg"
        if prefix and path.is_file():
            return path.read_text(encoding="utf-8")
    raise BagError(
        f"the definition of message type {type_name} is not known; source the workspace that "
        f"has {package}, so that AMENT_PREFIX_PATH leads to it"
    )


def _inner_types(type_name: str, store: Typestore) -> list[str]:
    inner = []
    for kind, detail in field_types(type_name, store).values():
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, detail = detail[0]
        if kind == Nodetype.NAME:
            inner.append(detail)
    return inner


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Return the shared type store. Readers of foreign bags make their own: see `bags`."""
    return make_typestore()


def type_name_of(message: Any) -> str:
    """Return ``"package/msg/Name"`` of a rosbags or rclpy message.

    Raises:
        TypeError: ``message`` is neither.
    """
    name = getattr(message, "__msgtype__", None)
    if name is not None:
        return name
    module = type(message).__module__.split(".")
    if len(module) >= 2 and module[1] in {"msg", "srv", "action"}:
        return f"{module[0]}/{module[1]}/{type(message).__name__}"
    raise TypeError(f"{type(message).__name__} is not a ROS message")


def field_types(type_name: str, store: Typestore | None = None) -> dict[str, Any]:
    """Return the fields of a message type and their rosbags descriptions, in order.

    Raises:
        KeyError: The type is not in the store.
    """
    definitions = (store or typestore()).fielddefs[type_name][1]
    return {
        name: description
        for name, description in definitions
        if name != "structure_needs_at_least_one_member"
    }


def has_header(type_name: str, store: Typestore | None = None) -> bool:
    """Say whether a message type begins with a ``std_msgs/Header`` named ``header``."""
    fields = field_types(type_name, store)
    return next(iter(fields.items()), None) == (
        "header",
        (Nodetype.NAME, "std_msgs/msg/Header"),
    )


def complete_trajectory(
    message: Any, names: Sequence[str], period_s: float, stops: bool = False
) -> None:
    """Say in a trajectory whose numbers its points hold, and by when, for drivers that ask.

    Only ``trajectory_msgs/msg/JointTrajectory`` has anything to say; others are left as they are.
    The trajectory ends half a period later than the next is due, so that an arm does not stand
    still for as long as that is late; one that stops the robot ends in time.

    Args:
        message: An rclpy or rosbags message with its points; changed in place.
        names: Of the axes.
        period_s: Seconds from point to point.
        stops: Whether its numbers stop the robot.
    """
    if not hasattr(message, "joint_names"):
        return
    message.joint_names = list(names)
    for number, point in enumerate(message.points, start=1):
        overlaps = not stops and number == len(message.points)
        due_s = (number + TRAJECTORY_OVERLAP * overlaps) * period_s
        after = divmod(round(due_s * 1e9), 1_000_000_000)
        point.time_from_start.sec, point.time_from_start.nanosec = after


def make_message(type_name: str, store: Typestore | None = None) -> Any:
    """Return a message of zeros, empty strings and empty sequences.

    Raises:
        KeyError: The type is not in the store.
    """
    chosen = store or typestore()
    values = {
        normalize_fieldname(name): _default(description, chosen)
        for name, description in chosen.fielddefs[type_name][1]
    }
    return chosen.types[type_name](**values)


def _default(description: Any, store: Typestore) -> Any:
    kind, detail = description
    if kind == Nodetype.BASE:
        if detail[0] == "string":
            return ""
        return False if detail[0] == "bool" else 0.0 if detail[0].startswith("float") else 0
    if kind == Nodetype.NAME:
        return make_message(detail, store)
    element, count = detail
    length = count if kind == Nodetype.ARRAY else 0
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        return np.zeros(length, dtype=NUMERIC_TYPES[element[1][0]])
    return [_default(element, store) for _ in range(length)]
