"""What a model is given of one moment: pictures of its cameras, numbers of the robot's own state.

Which cameras and numbers is written in the checkpoint (`model.inputs`, names of the contract); here
the contract is looked up once, and pictures and states come out as the model was trained on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import Camera
from lewm_core.data.images import prepare_picture
from lewm_core.errors import ContractError, ImageError
from lewm_core.validation import suggestion


class Inputs(Protocol):
    """What a model says that it is given, see `lewm_core.model.config.InputsConfig`."""

    cameras: tuple[str, ...]
    state: bool | tuple[str, ...]


class ModelSettings(Protocol):
    """The part of a model's settings that is about pictures and states."""

    @property
    def inputs(self) -> Inputs:
        """What it is given."""
        ...

    @property
    def image_size(self) -> int:
        """Edge of its pictures, px."""
        ...


class Sight(Protocol):
    """A scene that can be looked at."""

    state_names: Sequence[str]
    cameras: Sequence[str]

    def render(self, width: int, height: int, camera: str | None = None) -> NDArray[np.uint8]:
        """Return what a camera sees: ``(height, width, 3)`` uint8 RGB."""
        ...

    def ground_truth(self) -> NDArray[np.float64]:
        """Return the ground truth ``(N,)``."""
        ...


@dataclass(frozen=True, eq=False)
class Observation:
    """One moment as a model takes it.

    Attributes:
        picture: ``(3 C, S, S)`` uint8 RGB, camera after camera.
        state: ``(P,)`` float32 in the contract's units; None for a model that is given pictures
            only.
    """

    picture: NDArray[np.uint8]
    state: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ObservationLayout:
    """How a moment becomes an `Observation`.

    Attributes:
        cameras: C of the contract, in the model's order.
        state_names: P fields of the contract that the model is given.
        image_size: S, px.
    """

    cameras: tuple[Camera, ...]
    state_names: tuple[str, ...]
    image_size: int

    @classmethod
    def of(cls, contract: Contract, settings: ModelSettings) -> ObservationLayout:
        """Look up in a contract what a model is given.

        Raises:
            ContractError: The contract has no such camera or field, or it does not call the field
                proprioceptive.
        """
        inputs = settings.inputs
        return cls(
            contract.select_cameras(inputs.cameras),
            given_state(contract, inputs),
            settings.image_size,
        )

    def observe(
        self,
        pictures: Mapping[str, NDArray[np.uint8]],
        state: Mapping[str, float] | None = None,
    ) -> Observation:
        """Return what the model is given.

        Args:
            pictures: Camera's name to ``(H, W, 3)`` uint8 RGB as it came; others may be among them.
            state: Name to value; others may be among them. Needed where `state_names` has some.

        Raises:
            ImageError: A picture has another shape, or its crop reaches outside of it.
            KeyError: A camera or a field is missing.
        """
        return Observation(self._stack(pictures), self._select(state))

    def _stack(self, pictures: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return pictures as the model sees them: ``(3 C, S, S)`` uint8; see `observe`."""
        prepared = []
        for camera in self.cameras:
            try:
                prepared.append(
                    prepare_picture(pictures[camera.name], camera.crop, self.image_size)
                )
            except ImageError as error:
                raise ImageError(f"camera {camera.name!r}: {error}") from error
        return np.concatenate(prepared)

    def look(self, scene: Sight) -> Observation:
        """Return what the model is given of a scene as it is now."""
        state = None
        if self.state_names:
            state = dict(zip(scene.state_names, scene.ground_truth().tolist(), strict=True))
        return self.observe(render_cameras(scene, self.cameras), state)

    def _select(self, state: Mapping[str, float] | None) -> NDArray[np.float32] | None:
        if not self.state_names:
            return None
        return np.array([(state or {})[name] for name in self.state_names], dtype=np.float32)


def render_cameras(scene: Sight, cameras: Iterable[Camera]) -> dict[str, NDArray[np.uint8]]:
    """Return what cameras of a contract see of a scene: name to ``(H, W, 3)`` uint8 RGB."""
    # A contract's only camera may have any name: it is the scene's usual one then.
    return {
        camera.name: scene.render(
            *camera.size, camera=camera.name if camera.name in scene.cameras else None
        )
        for camera in cameras
    }


def given_state(contract: Contract, inputs: Inputs) -> tuple[str, ...]:
    """Return the names of the state fields that a model is given.

    Raises:
        ContractError: A field is not in the contract, or not proprioceptive, or all proprioceptive
            ones are wanted and there is none.
    """
    measured = contract.proprioceptive_names
    if isinstance(inputs.state, tuple):
        for name in inputs.state:
            if name not in contract.state_names:
                raise ContractError(
                    f"model.inputs.state: contract {contract.name!r} has no state field {name!r}; "
                    + suggestion(name, contract.state_names)
                )
            if name not in measured:
                raise ContractError(
                    f"model.inputs.state: {name!r} is not proprioceptive in contract "
                    f"{contract.name!r}; if the robot measures it itself, write proprioceptive: "
                    "true beside it"
                )
        return inputs.state
    if inputs.state and not measured:
        raise ContractError(
            f"model.inputs.state is true, but no state field of contract {contract.name!r} is "
            "proprioceptive; write proprioceptive: true beside those that the robot measures itself"
        )
    return tuple(measured) if inputs.state else ()
