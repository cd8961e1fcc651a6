"""The contract: one file that says what is recorded, trained on and commanded.

``config/robots/NAME.yaml`` names the camera and command topics, the fields of the action vector
with their units and limits, the clocks and the timeouts. It travels into every dataset and every
checkpoint, so that training and deployment cannot disagree. `docs/contract.md` has every key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import Field, model_validator

from lewm_core.data.contract_parts import (
    ADDED_LATER,
    Action,
    Camera,
    Name,
    Seconds,
    State,
    StrictModel,
    Text,
)
from lewm_core.errors import ConfigError, ContractError
from lewm_core.paths import config_path, preset_names
from lewm_core.validation import read_yaml_mapping, suggestion, validate

#: Name of the contract inside a dataset folder.
CONTRACT_FILE = "contract.yaml"


class Contract(StrictModel):
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
        theirs = {field.name: field for field in other.action.fields if field.measured is not None}
        fields = tuple(
            field.model_copy(
                update={
                    "measured": theirs[field.name].measured,
                    "path_tolerance": theirs[field.name].path_tolerance or field.path_tolerance,
                }
            )
            if field.name in theirs
            else field
            for field in self.action.fields
        )
        measured = {field.measured for field in theirs.values()}
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
            and any(field.name in measured for field in state.fields)
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

    def stops(self, values: np.ndarray) -> bool:
        """Whether an action ``(A,)`` is the hold command, whatever was commanded before."""
        return all(
            field.hold != "last" and value == field.hold
            for field, value in zip(self.action.fields, values, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain lists, strings and numbers, for YAML and JSON."""
        values = self.model_dump(mode="json")
        for field in values["action"]["fields"]:
            # Contracts without them stay readable for releases that do not know them.
            for key in ADDED_LATER:
                if field[key] is None:
                    del field[key]
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


def _check_unique(what: str, values: list[str]) -> None:
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"{what} must differ, but {doubled[0]!r} is there twice")
