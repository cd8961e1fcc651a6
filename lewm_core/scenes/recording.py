"""One episode of a scene under its expert, written as the bag a recorder would have made of it.

Topics, message types and fields come from the scene's contract, stamps are simulated time. The
layout of an episode of K control steps with pictures every P steps::

    tick      0        1      ...     P      ...    K-1      K
    state     s_0      s_1            s_P           s_K-1    s_K
    picture   o_0                     o_P                    o_K if P divides K
    command   a_0      a_1            a_P           a_K-1

Command a_k is in force from tick k to tick k + 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lewm_core.data.bags import BagWriter
from lewm_core.data.contract import Contract
from lewm_core.data.fields import FieldSelector
from lewm_core.data.messages import make_message
from lewm_core.errors import ContractError
from lewm_core.scenes.random_driver import RandomDriver
from lewm_core.scenes.registry import Expert, Scene, make_expert, make_scene

#: ns; stamp of an episode's tick 0. Not 0, which tools take for "no stamp".
START_NS = 1_000_000_000
_NS_PER_S = 1_000_000_000


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
        self._period_ns = round(self._scene.control_period_s * _NS_PER_S)
        action = contract.action
        self._action_fields = [FieldSelector.parse(field.selector) for field in action.fields]
        self._command = make_message(action.message)
        if hasattr(self._command, "header"):
            self._command.header.frame_id = action.frame_id
        names = list(self._scene.state_names)
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
        camera = contract.camera
        width, height = camera.size
        self._image = make_message(camera.message)
        self._image.header.frame_id = camera.name
        self._image.encoding = "rgb8"
        self._image.width, self._image.height, self._image.step = width, height, 3 * width

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
            The number of pictures.

        Raises:
            BagError: ``path`` exists already.
        """
        scene_seed, expert_seed = (int(value) for value in seed.generate_state(2))
        scene, expert, contract = self._scene, self._expert, self.contract
        state = scene.reset(seed=scene_seed)
        expert.reset(seed=expert_seed)
        pictures = 0
        # The bag is complete or thrown away, so nothing need reach the disk before its end; and
        # without a clock the same seed gives the same bytes.
        with BagWriter(
            path,
            flush_s=float("inf"),
            custom_data={"scene_seed": str(scene_seed), "expert_seed": str(expert_seed)},
        ) as writer:
            for topic, type_name in contract.topic_types().items():
                writer.add_topic(topic, type_name)
            for tick in range(steps + 1):
                stamp_ns = START_NS + tick * self._period_ns
                self._write_states(writer, stamp_ns, state)
                if tick % picture_every == 0:
                    self._write_picture(writer, stamp_ns)
                    pictures += 1
                if tick < steps:
                    action = expert.act(state)
                    self._write_command(writer, stamp_ns, action)
                    state = scene.step_control(action)
        return pictures

    def close(self) -> None:
        """Free the camera's buffers."""
        self._scene.close()

    def _write_states(self, writer: BagWriter, stamp_ns: int, state: np.ndarray) -> None:
        for topic, message, selectors in self._states:
            for selector, index in selectors:
                selector.set(message, float(state[index]))
            _stamp(message, stamp_ns)
            writer.write(topic, stamp_ns, message)

    def _write_picture(self, writer: BagWriter, stamp_ns: int) -> None:
        image = self._image
        image.data = self._scene.render(image.width, image.height).reshape(-1)
        _stamp(image, stamp_ns)
        writer.write(self.contract.camera.topic, stamp_ns, image)

    def _write_command(self, writer: BagWriter, stamp_ns: int, action: np.ndarray) -> None:
        for selector, value in zip(self._action_fields, action, strict=True):
            selector.set(self._command, float(value))
        _stamp(self._command, stamp_ns)
        writer.write(self.contract.action.topic, stamp_ns, self._command)


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
    if len(contract.cameras) != 1 or contract.camera.message != "sensor_msgs/msg/Image":
        raise ContractError(f"{where}: cameras must be one, of sensor_msgs/msg/Image")
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


def _stamp(message: Any, stamp_ns: int) -> None:
    if hasattr(message, "header"):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, _NS_PER_S)


def random_driver(scene: Scene) -> RandomDriver:
    """Return what drives a scene by uniform commands within its limits."""
    return RandomDriver(scene.action_lower, scene.action_upper, seed=0)
