"""The contract: one file that says what is recorded, trained on and commanded.

``config/robots/NAME.yaml`` names the camera and command topics, the fields of the action vector
with their units and limits, the clocks and the timeouts. It travels into every dataset and every
checkpoint, so that training and deployment cannot disagree. `docs/contract.md` has every key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import has_header, typestore
from lewm_core.errors import ConfigError, ContractError
from lewm_core.paths import config_path, preset_names
from lewm_core.reading import LARGEST_PIXELS
from lewm_core.validation import nearest, read_yaml_mapping, suggestion, validate

#: Name of the contract inside a dataset folder.
CONTRACT_FILE = "contract.yaml"

Clock = Literal["header", "receive"]


def _absolute_topic(value: str) -> str:
    if re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", value) is None:
        raise ValueError(f"{value!r} is not an absolute topic such as /camera/image_raw")
    return value


# Upper bounds keep a stranger's contract from asking for terabytes or for longer than a day.
Finite = Annotated[float, Field(ge=-1e12, le=1e12)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Topic = Annotated[str, Field(max_length=255), AfterValidator(_absolute_topic)]
Unit = Annotated[str, Field(min_length=1, max_length=32)]
Text = Annotated[str, Field(max_length=10_000)]
Selector = Annotated[str, Field(max_length=255)]
Pixels = Annotated[int, Field(gt=0, le=65536)]
Offset = Annotated[int, Field(ge=0, le=65536)]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class _Strict(BaseModel):
    """A model that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Camera(_Strict):
    """One camera topic.

    Attributes:
        name: What the project calls it.
        topic: Absolute ROS topic.
        message: ``sensor_msgs/msg/Image`` or ``sensor_msgs/msg/CompressedImage``.
        size: ``[width, height]`` in pixels of the picture on the topic.
        crop: ``[x, y, width, height]`` in pixels of the part the model sees; None: all of it.
        clock: Which stamp aligns it: the message's header or the time of receipt.
        timeout: s; the planner holds when its newest picture is older.
    """

    name: Name
    topic: Topic
    message: Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"]
    size: tuple[Pixels, Pixels]
    crop: tuple[Offset, Offset, Pixels, Pixels] | None = None
    clock: Clock = "header"
    timeout: Seconds = 0.5

    @model_validator(mode="after")
    def _crop_inside(self) -> Camera:
        if self.size[0] * self.size[1] > LARGEST_PIXELS:
            raise ValueError(
                f"size {list(self.size)} is more than {LARGEST_PIXELS // 1_000_000} megapixels"
            )
        if self.crop is not None:
            x, y, width, height = self.crop
            if x + width > self.size[0] or y + height > self.size[1]:
                raise ValueError(
                    f"crop {list(self.crop)} reaches outside the picture of {list(self.size)} px; "
                    "crop is [x, y, width, height]"
                )
        return self


class ActionField(_Strict):
    """One number of the action vector.

    Attributes:
        name: What the project calls it.
        selector: Where it is in the command message, such as ``twist.linear.x``.
        unit: SI, as REP-103 has it: ``m``, ``m/s``, ``rad``, ...
        lower: Lower limit, in ``unit``.
        upper: Upper limit, in ``unit``.
        rate_limit: Largest change per second, in ``unit``/s.
        hold: The value that stops the robot, or ``last`` to repeat the last command (right for
            position commands only).
        measured: Name of the state field that tells where the axis stands, for ``hold: last``: the
            first command begins there. None: the planner commands nothing for such a field.
    """

    name: Name
    selector: Selector
    unit: Unit
    lower: Finite
    upper: Finite
    rate_limit: Positive
    hold: Literal["last"] | Finite
    measured: Name | None = None

    @field_validator("selector")
    @classmethod
    def _selector_parses(cls, value: str) -> str:
        return _parsed(value)

    @field_validator("hold", mode="before")
    @classmethod
    def _hold_is_known(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "last":
            raise ValueError(f"{value!r} is neither a number nor 'last'")
        return value

    @model_validator(mode="after")
    def _limits_in_order(self) -> ActionField:
        if self.lower >= self.upper:
            raise ValueError(
                f"lower {self.lower:g} is not below upper {self.upper:g}; swap or mend the limits"
            )
        if self.hold != "last" and not self.lower <= self.hold <= self.upper:
            raise ValueError(
                f"hold {self.hold:g} is outside the limits {self.lower:g} to {self.upper:g}"
            )
        if self.measured is not None and self.hold != "last":
            raise ValueError("measured is for a field with hold: last; leave it out")
        return self


class StateField(_Strict):
    """One number of the scene's or robot's state; read by probes.

    Attributes:
        name: What the project calls it.
        selector: Where it is in the message, such as ``position[0]``.
        unit: SI, as REP-103 has it.
        proprioceptive: The robot measures it itself, so that a model may be given it, if its
            training says so (``model.inputs.state``); by default no model is given a state.
    """

    name: Name
    selector: Selector
    unit: Unit
    proprioceptive: bool = False

    @field_validator("selector")
    @classmethod
    def _selector_parses(cls, value: str) -> str:
        return _parsed(value)


class Executed(_Strict):
    """A topic on which the robot reports the action that it took in truth.

    Attributes:
        topic: Absolute ROS topic.
        message: Type of the message.
        clock: Which stamp aligns it.
        fields: Selectors of the action vector's numbers, in the order of the action's fields and in
            their units.
    """

    topic: Topic
    message: str
    clock: Clock = "header"
    fields: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("fields")
    @classmethod
    def _selectors_parse(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_parsed(value) for value in values)

    @model_validator(mode="after")
    def _reachable(self) -> Executed:
        _check_message(self.message, self.clock, [(selector, selector) for selector in self.fields])
        return self


class NumberStream(NamedTuple):
    """Where numbers are found in a recording.

    Attributes:
        topic: Absolute ROS topic.
        clock: Which stamp aligns it.
        selectors: Of the numbers, in order.
    """

    topic: str
    clock: Clock
    selectors: tuple[str, ...]


class Action(_Strict):
    """The command topic.

    Attributes:
        topic: Absolute ROS topic.
        message: Type of the command message.
        frame_id: Put into the header of published commands.
        clock: Which stamp aligns recorded commands.
        timeout: s; the robot's side holds when commands are older.
        resample: ``latest``: the newest command at a control tick is the action of that tick;
            ``mean``: the commands in force during the tick, averaged over time.
        fields: The action vector, in order.
        executed: The topic on which the robot reports the action it took; None: it does not.
        source: Which of the two a model learns from; commands are what is published in any case.
    """

    topic: Topic
    message: Selector
    frame_id: Selector = ""
    clock: Clock = "header"
    timeout: Seconds = 0.3
    resample: Literal["latest", "mean"] = "latest"
    fields: Annotated[tuple[ActionField, ...], Field(min_length=1, max_length=1024)]
    executed: Executed | None = None
    source: Literal["commanded", "executed"] = "commanded"

    @model_validator(mode="after")
    def _reachable(self) -> Action:
        _check_message(
            self.message, self.clock, [(field.name, field.selector) for field in self.fields]
        )
        return self

    @model_validator(mode="after")
    def _executed_fits(self) -> Action:
        if self.executed is None:
            if self.source == "executed":
                raise ValueError("source is 'executed', but executed names no topic; add it")
        elif len(self.executed.fields) != len(self.fields):
            raise ValueError(
                f"executed.fields has {len(self.executed.fields)} selectors, but fields has "
                f"{len(self.fields)} entries; they are the same numbers in the same order"
            )
        return self

    @property
    def learned(self) -> NumberStream:
        """What a model learns from, by `source`."""
        if self.source == "executed" and self.executed is not None:
            return NumberStream(self.executed.topic, self.executed.clock, self.executed.fields)
        selectors = tuple(field.selector for field in self.fields)
        return NumberStream(self.topic, self.clock, selectors)


class State(_Strict):
    """A topic whose numbers are kept beside the pictures for probes.

    Attributes:
        name: What the project calls it.
        topic: Absolute ROS topic.
        message: Type of the message.
        clock: Which stamp aligns it.
        fields: Which numbers.
    """

    name: Name
    topic: Topic
    message: Selector
    clock: Clock = "header"
    fields: Annotated[tuple[StateField, ...], Field(min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _reachable(self) -> State:
        _check_message(
            self.message, self.clock, [(field.name, field.selector) for field in self.fields]
        )
        return self


class Contract(_Strict):
    """Topics, action vector and timing of one robot or scene.

    Attributes:
        name: Of the robot or scene.
        description: For people.
        control_rate: Hz; rate of the action vector.
        cameras: At least one; all are recorded. A model sees the first, unless its training names
            others (``model.inputs.cameras``).
        action: The command topic.
        states: Topics for probes.
        max_gap: s; a longer silence of the camera ends an episode.
    """

    name: Name
    description: Text = ""
    control_rate: Annotated[float, Field(ge=0.001, le=1000)]
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1, max_length=16)]
    action: Action
    states: Annotated[tuple[State, ...], Field(max_length=64)] = ()
    max_gap: Seconds = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Contract:
        _check_unique("camera names", [camera.name for camera in self.cameras])
        _check_unique("action fields", [field.name for field in self.action.fields])
        _check_unique("action selectors", [field.selector for field in self.action.fields])
        _check_unique("state fields", self.state_names)
        _check_unique("topics", self.topics())
        self._check_measured()
        if self.action.timeout < self.control_period:
            raise ValueError(
                f"action.timeout {self.action.timeout:g} s is under one control period "
                f"({self.control_period:g} s): every command would be too old before the next"
            )
        if self.max_gap < 2.0 * self.control_period:
            raise ValueError(
                f"max_gap {self.max_gap:g} s is under two control periods "
                f"({2.0 * self.control_period:g} s): every late message would end an episode"
            )
        return self

    def _check_measured(self) -> None:
        units = dict(zip(self.state_names, self.state_units, strict=True))
        for field in self.action.fields:
            if field.measured is None:
                continue
            if field.measured not in units:
                raise ValueError(
                    f"action field {field.name}: measured names no state field "
                    f"{field.measured!r}; {suggestion(field.measured, units)}"
                )
            if units[field.measured] != field.unit:
                raise ValueError(
                    f"action field {field.name} is in {field.unit}, but {field.measured}, where it "
                    f"is measured, in {units[field.measured]}; let the units agree"
                )

    @property
    def control_period(self) -> float:
        """Seconds between two actions."""
        return 1.0 / self.control_rate

    @property
    def camera(self) -> Camera:
        """The first camera, the only one that a model sees by default."""
        return self.cameras[0]

    @property
    def action_names(self) -> list[str]:
        """Names of the action vector's fields, ``A`` of them."""
        return [field.name for field in self.action.fields]

    @property
    def state_names(self) -> list[str]:
        """Names of all state fields, topic after topic, ``S`` of them."""
        return [field.name for state in self.states for field in state.fields]

    @property
    def state_units(self) -> list[str]:
        """Units of all state fields, in the order of `state_names`."""
        return [field.unit for state in self.states for field in state.fields]

    @property
    def proprioceptive_names(self) -> list[str]:
        """Names of the state fields that the robot measures itself, in their order."""
        return [
            field.name for state in self.states for field in state.fields if field.proprioceptive
        ]

    def select_cameras(self, names: Sequence[str]) -> tuple[Camera, ...]:
        """Return the cameras of these names, in this order; of no names, the first camera.

        Raises:
            ContractError: There is no camera of a name.
        """
        known = {camera.name: camera for camera in self.cameras}
        for name in names:
            if name not in known:
                raise ContractError(
                    f"contract {self.name!r} has no camera {name!r}; {suggestion(name, known)}"
                )
        return tuple(known[name] for name in names) or self.cameras[:1]

    def seen_through(self, names: Sequence[str]) -> Contract:
        """Return the contract with these cameras only, in this order; see `select_cameras`."""
        return self.model_copy(update={"cameras": self.select_cameras(names)})

    def measured_as(self, other: Contract) -> Contract:
        """Return the contract with what ``other`` says of where the axes are measured.

        It may be added after the training: nothing that was learnt depends on it. A state that
        only ``other`` has comes along, and is not given to a model.
        """
        theirs = {field.name: field.measured for field in other.action.fields}
        fields = tuple(
            field.model_copy(update={"measured": theirs.get(field.name) or field.measured})
            for field in self.action.fields
        )
        known = {state.name for state in self.states}
        added = tuple(
            state.model_copy(
                update={
                    "fields": tuple(
                        field.model_copy(update={"proprioceptive": False})
                        for field in state.fields
                    )
                }
            )
            for state in other.states
            if state.name not in known
            and any(field.name in theirs.values() for field in state.fields)
        )
        values = self.model_copy(
            update={
                "action": self.action.model_copy(update={"fields": fields}),
                "states": (*self.states, *added),
            }
        )
        return Contract.from_dict(values.to_dict(), f"contract {self.name!r}")

    def topics(self) -> list[str]:
        """Return all topics of the contract: cameras, action, executed action, states."""
        executed = self.action.executed
        return [
            *(camera.topic for camera in self.cameras),
            self.action.topic,
            *([executed.topic] if executed is not None else []),
            *(state.topic for state in self.states),
        ]

    def topic_types(self) -> dict[str, str]:
        """Return the message type of every topic of the contract."""
        types = {camera.topic: camera.message for camera in self.cameras}
        types[self.action.topic] = self.action.message
        if self.action.executed is not None:
            types[self.action.executed.topic] = self.action.executed.message
        types.update({state.topic: state.message for state in self.states})
        return types

    def action_limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float | str]]:
        """Return the limits of the action vector.

        Returns:
            lower ``(A,)``, upper ``(A,)``, rate limit per second ``(A,)``, all float64 in the
            fields' units, and the list of hold values (a number or ``"last"``).
        """
        fields = self.action.fields
        return (
            np.array([field.lower for field in fields], dtype=np.float64),
            np.array([field.upper for field in fields], dtype=np.float64),
            np.array([field.rate_limit for field in fields], dtype=np.float64),
            [field.hold for field in fields],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain lists, strings and numbers, for YAML and JSON."""
        values = self.model_dump(mode="json")
        for field in values["action"]["fields"]:
            # Contracts without it stay readable for releases that do not know it.
            if field["measured"] is None:
                del field["measured"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "contract") -> Contract:
        """Validate a contract that was read from elsewhere.

        Args:
            values: As `to_dict` makes them.
            source: What an error names first.

        Raises:
            ContractError: One line with source, key, problem and nearest valid key.
        """
        return validate(cls, values, source, ContractError)


def load_contract(path_or_name: str | Path) -> Contract:
    """Load a contract file, or one of those that ship with the package by its name.

    Args:
        path_or_name: A YAML file, a dataset folder that holds ``contract.yaml``, or a name such
            as ``push_t``.

    Raises:
        ContractError: There is no such file, or it is not valid; the message names the file, the
            key and the nearest valid key.
    """
    path = Path(path_or_name)
    if path.is_dir():
        path = path / CONTRACT_FILE
    elif not path.exists() and path.suffix not in {".yaml", ".yml"}:
        try:
            path = config_path("robots", path_or_name)
        except ConfigError:
            names = preset_names("robots")
            raise ContractError(
                f"there is no contract {str(path_or_name)!r}, nor a file of that name; "
                + suggestion(str(path_or_name), names)
            ) from None
    return Contract.from_dict(read_yaml_mapping(path, ContractError), source=str(path))


def save_contract(contract: Contract, path: str | Path) -> None:
    """Write a contract as YAML, such that `load_contract` reads the same."""
    text = yaml.safe_dump(contract.to_dict(), sort_keys=False, allow_unicode=True, width=100)
    Path(path).write_text(text, encoding="utf-8")


def contract_differences(
    first: Contract, second: Contract, *, recordings: bool = False
) -> list[str]:
    """Return one line per key in which two contracts differ; empty when they agree.

    The names and descriptions of the contracts are for people and do not count, nor does what is
    called proprioceptive and where positions are measured: that says how recordings and models may
    be used, and may be added to them later. A line reads
    ``action.fields[0].upper: 0.15 != 0.2`` (first, then second).

    Args:
        first: A contract.
        second: Another one.
        recordings: Ask only whether recordings under the one can be read under the other; then
            ``action.source`` does not count: they have both of its topics.
    """
    left, right = first.to_dict(), second.to_dict()
    for values in (left, right):
        del values["description"], values["name"]
        if recordings:
            del values["action"]["source"]
        for field in values["action"]["fields"]:
            field.pop("measured", None)
        for state in values["states"]:
            for field in state["fields"]:
                del field["proprioceptive"]
    return list(_differences(left, right, ""))


def require_contract(trained: dict[str, Any] | None, given: Contract, what: str) -> None:
    """Make sure that a checkpoint was trained under a contract.

    Args:
        trained: The checkpoint's contract as it holds it; None: it has none, and nothing is known.
        given: What it is to be used under.
        what: The checkpoint, for the message.

    Raises:
        ContractError: The two differ; the message names the keys.
    """
    if trained is None:
        return
    differences = contract_differences(Contract.from_dict(trained, f"contract in {what}"), given)
    if differences:
        raise ContractError(
            f"{what} was trained under another contract than {given.name!r} is: "
            + "; ".join(differences)
        )


def _differences(left: Any, right: Any, key: str) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        lines = []
        for name in [*left, *(name for name in right if name not in left)]:
            inner = f"{key}.{name}" if key else name
            lines += _differences(left.get(name), right.get(name), inner)
        return lines
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        lines = []
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            lines += _differences(one, other, f"{key}[{index}]")
        return lines
    if isinstance(left, list) and isinstance(right, list) and any(
        isinstance(entry, dict) for entry in [*left, *right]
    ):
        return [f"{key}: {len(left)} entries != {len(right)} entries"]
    if isinstance(left, float) and isinstance(right, float):
        return [] if math.isclose(left, right, rel_tol=1e-9) else [f"{key}: {left!r} != {right!r}"]
    return [] if left == right else [f"{key}: {left!r} != {right!r}"]


def _parsed(selector: str) -> str:
    try:
        FieldSelector.parse(selector)
    except ContractError as error:
        raise ValueError(str(error)) from error
    return selector


def _check_message(type_name: str, clock: Clock, fields: Sequence[tuple[str, str]]) -> None:
    """Check that the type is known, has the clock, and that every selector reaches a number.

    Args:
        type_name: Of the message.
        clock: Which stamp aligns it.
        fields: Name and selector of each number.
    """
    store = typestore()
    if type_name not in store.fielddefs:
        near = nearest(type_name, store.fielddefs)
        mend = f"did you mean {near!r}?" if near else "write it like 'geometry_msgs/msg/Twist'"
        raise ValueError(f"unknown message type {type_name!r}; {mend}")
    if clock == "header" and not has_header(type_name, store):
        raise ValueError(f"clock is 'header', but {type_name} has no header; use clock: receive")
    for index, (name, selector) in enumerate(fields):
        try:
            FieldSelector.parse(selector).check(type_name, store)
        except ContractError as error:
            raise ValueError(f"fields[{index}] ({name}): {error}") from error


def _check_unique(what: str, values: list[str]) -> None:
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"{what} must differ, but {doubled[0]!r} is there twice")
