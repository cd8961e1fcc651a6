"""The parts of a contract: cameras, the command topic with its action vector, states.

What each part allows is checked here; what they must be to each other in `contract`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import has_header, typestore
from lewm_core.errors import ContractError
from lewm_core.reading import LARGEST_PIXELS
from lewm_core.validation import nearest

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

#: Keys of an action field that say how a robot is driven: they may be added after the training.
ADDED_LATER = ("measured", "path_tolerance")

#: s by which a robot that follows well is behind its commands at most: the state's age, the way of
#: a command, and the controller's own lag.
_LAG_S = 0.5

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class StrictModel(BaseModel):
    """A model that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Camera(StrictModel):
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


class ActionField(StrictModel):
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
        path_tolerance: How far the axis may be measured from where it was sent, in ``unit``, before
            the planner stops (what control_msgs/action/FollowJointTrajectory means by it). None:
            half a second's way at ``rate_limit``.
    """

    name: Name
    selector: Selector
    unit: Unit
    lower: Finite
    upper: Finite
    rate_limit: Positive
    hold: Literal["last"] | Finite
    measured: Name | None = None
    path_tolerance: Positive | None = None

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
        if self.path_tolerance is not None and self.measured is None:
            raise ValueError("path_tolerance is for a field with measured; leave it out")
        return self

    @property
    def allowed_deviation(self) -> float:
        """Largest distance, in ``unit``, between where the axis was sent and where it stands."""
        if self.path_tolerance is not None:
            return self.path_tolerance
        return _LAG_S * self.rate_limit


class StateField(StrictModel):
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


class Executed(StrictModel):
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


class Action(StrictModel):
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


class State(StrictModel):
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
