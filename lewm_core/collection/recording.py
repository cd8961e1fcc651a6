"""An episode of a scene, written as the bag a recorder would have made of it.

Topics, message types and fields come from the scene's contract, stamps are simulated time. The
layout of an episode of K control steps with pictures every P steps::

    tick      0        1      ...     P      ...    K-1      K
    state     s_0      s_1            s_P           s_K-1    s_K
    picture   o_0                     o_P                    o_K if P divides K
    command   a_0      a_1            a_P           a_K-1

Command a_k is in force from tick k to tick k + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.bags import BagWriter
from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import Camera
from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import complete_trajectory, make_message
from lewm_core.data.observation import render_cameras
from lewm_core.errors import ContractError
from lewm_core.scenes.registry import Expert, Scene, make_expert, make_scene

#: ns; stamp of an episode's tick 0. Not 0, which tools take for "no stamp".
START_NS = 1_000_000_000
_NS_PER_S = 1_000_000_000


class EpisodeRecorder:
    """The bag of one episode, written tick by tick; a context manager.

    Args:
        path: Folder of the bag, made new.
        scene: Whose cameras are looked through when a picture is due.
        contract: Of the scene, see `check_scene_contract`.
        picture_every: Control steps from picture to picture of each camera, P.
        seeds: Told in the bag's custom data.

    Raises:
        BagError: ``path`` exists already.
    """

    def __init__(
        self,
        path: Path,
        scene: Scene,
        contract: Contract,
        picture_every: int,
        seeds: Mapping[str, int],
    ) -> None:
        self._scene, self._contract, self._picture_every = scene, contract, picture_every
        self._period_ns = round(scene.control_period_s * _NS_PER_S)
        self._tick = 0
        self.pictures = 0
        action = contract.action
        self._action_fields = [FieldSelector.parse(field.selector) for field in action.fields]
        self._command = make_message(action.message)
        if hasattr(self._command, "header"):
            self._command.header.frame_id = action.frame_id
        names = list(scene.state_names)
        self._states = []
        for state in contract.states:
            message = make_message(state.message)
            if hasattr(message, "name") and isinstance(message.name, list):
                message.name = [field.name for field in state.fields]
            selectors = [
                (FieldSelector.parse(field.selector), names.index(field.name))
                for field in state.fields
            ]
            self._states.append((state.topic, message, selectors))
        self._images = [(camera, _empty_image(camera)) for camera in contract.cameras]
        # The bag is complete or thrown away, so nothing need reach the disk before its end; and
        # without a clock the same seed gives the same bytes.
        self._writer = BagWriter(
            path,
            flush_s=float("inf"),
            custom_data={name: str(seed) for name, seed in seeds.items()},
        )

    def __enter__(self) -> EpisodeRecorder:
        self._writer.__enter__()
        for topic, type_name in self._contract.topic_types().items():
            self._writer.add_topic(topic, type_name)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._writer.__exit__(*exception)

    def observe(self, state: NDArray) -> dict[str, NDArray[np.uint8]] | None:
        """Write the ground truth ``(N,)`` of this tick, and the cameras' pictures where due.

        Returns:
            Camera's name to its picture ``(H, W, 3)`` uint8 RGB; None where none is due.
        """
        stamp_ns = START_NS + self._tick * self._period_ns
        for topic, message, selectors in self._states:
            for selector, index in selectors:
                selector.set(message, float(state[index]))
            _stamp(message, stamp_ns)
            self._writer.write(topic, stamp_ns, message)
        if self._tick % self._picture_every:
            return None
        pictures = render_cameras(self._scene, self._contract.cameras)
        for camera, image in self._images:
            image.data = pictures[camera.name].reshape(-1)
            _stamp(image, stamp_ns)
            self._writer.write(camera.topic, stamp_ns, image)
        self.pictures += 1
        return pictures

    def command(self, action: NDArray) -> None:
        """Write the command ``(A,)`` that is in force from this tick to the next one."""
        stamp_ns = START_NS + self._tick * self._period_ns
        for selector, value in zip(self._action_fields, action, strict=True):
            selector.set(self._command, float(value))
        contract = self._contract
        complete_trajectory(
            self._command, contract.action_names, contract.control_period, contract.stops(action)
        )
        _stamp(self._command, stamp_ns)
        self._writer.write(self._contract.action.topic, stamp_ns, self._command)
        self._tick += 1


class EpisodeCollector:
    """Collects episodes of one scene; use it from one process, one episode after the other."""

    def __init__(
        self,
        name: str,
        contract: Contract,
        *,
        scene: Scene | None = None,
        driver: Expert | None = None,
    ) -> None:
        """Make the scene and what drives it.

        Args:
            name: Of the scene.
            contract: The scene's; its camera must be raw and its state fields those of the scene.
            scene: In the place of the scene of this name, a variant of it.
            driver: In the place of the scene's expert.

        Raises:
            UserError: Unknown scene, or MuJoCo or OpenGL is missing.
            ContractError: The contract is not one of this scene.
        """
        self.contract = contract
        self._scene: Scene = scene if scene is not None else make_scene(name, seed=0)
        self._expert: Expert = driver if driver is not None else make_expert(name, seed=0)
        check_scene_contract(self._scene, name, contract)

    def collect(
        self, path: Path, steps: int, picture_every: int, seed: np.random.SeedSequence
    ) -> int:
        """Run and write one episode.

        Args:
            path: Folder of the bag, made new.
            steps: Control steps, K.
            picture_every: Control steps from picture to picture, P.
            seed: Of the scene's reset and its driver; decides the episode.

        Returns:
            The number of pictures of each camera.

        Raises:
            BagError: ``path`` exists already.
        """
        scene_seed, expert_seed = (int(value) for value in seed.generate_state(2))
        state = self._scene.reset(seed=scene_seed)
        self._expert.reset(seed=expert_seed)
        seeds = {"scene_seed": scene_seed, "expert_seed": expert_seed}
        with EpisodeRecorder(path, self._scene, self.contract, picture_every, seeds) as recorder:
            for _ in range(steps):
                recorder.observe(state)
                action = self._expert.act(state)
                recorder.command(action)
                state = self._scene.step_control(action)
            recorder.observe(state)
        return recorder.pictures

    def collect_all(
        self,
        paths: Sequence[Path],
        steps: int,
        picture_every: int,
        seeds: Sequence[np.random.SeedSequence],
    ) -> None:
        """Run and write some episodes, one after the other; see `collect`."""
        for path, seed in zip(paths, seeds, strict=True):
            self.collect(path, steps, picture_every, seed)

    def close(self) -> None:
        """Free the camera's buffers."""
        self._scene.close()


def check_scene_contract(scene: Scene, name: str, contract: Contract) -> None:
    """Check that a contract fits a scene.

    Raises:
        ContractError: The first thing that does not fit.
    """
    where = f"contract {contract.name!r} for scene {name!r}"
    if abs(contract.control_rate * scene.control_period_s - 1.0) > 1e-9:
        rate = 1.0 / scene.control_period_s
        raise ContractError(
            f"{where}: control_rate is {contract.control_rate:g} Hz, the scene's is {rate:g}"
        )
    for camera in contract.cameras:
        if camera.message != "sensor_msgs/msg/Image":
            raise ContractError(
                f"{where}: camera {camera.name!r} must be of sensor_msgs/msg/Image"
            )
        if len(contract.cameras) > 1 and camera.name not in scene.cameras:
            raise ContractError(
                f"{where}: there is no camera {camera.name!r}; the scene has "
                + ", ".join(scene.cameras)
            )
    if len(contract.action.fields) != len(scene.action_lower):
        raise ContractError(
            f"{where}: action.fields has {len(contract.action.fields)} entries, the scene takes "
            f"{len(scene.action_lower)}"
        )
    for field_name in contract.state_names:
        if field_name not in scene.state_names:
            raise ContractError(
                f"{where}: states field {field_name!r} is unknown; the scene has "
                + ", ".join(scene.state_names)
            )


def _empty_image(camera: Camera) -> Any:
    image = make_message(camera.message)
    image.header.frame_id = camera.name
    image.encoding = "rgb8"
    image.width, image.height = camera.size
    image.step = 3 * image.width
    return image


def _stamp(message: Any, stamp_ns: int) -> None:
    if hasattr(message, "header"):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, _NS_PER_S)
