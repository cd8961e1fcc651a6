"""A planner practises: it drives a scene towards goals and what happens is recorded.

A world model trained on an expert's bags has seen what the expert does. A planner does other
things: it asks for the actions that *look* best to the model, which are those it is wrong about.
Bags of the planner's own driving hold exactly these, with what really came of them; trained on
both, the model's error under planned actions halves (docs/recipes.md). On a robot the same bags
come from ``record_dataset`` running beside the planner.

A goal has to be within reach, and nobody drives a robot there first. Here the scene's expert goes
ahead from where the episode stands, for 3 to 8 blocks; what the camera sees there is the goal, the
scene goes back to where it was, and the planner has twice the time. Then comes the next goal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_core.collection.recording import EpisodeRecorder, check_scene_contract
from lewm_core.data.contract import Contract
from lewm_core.data.contract_comparison import require_contract
from lewm_core.data.observation import Observation, ObservationLayout
from lewm_core.errors import UserError
from lewm_core.model.world_model import WorldModel
from lewm_core.planning import load_planner_config, make_solver, planner_for
from lewm_core.scenes import make_expert, make_scene
from lewm_core.scenes.registry import Expert, Scene

#: Episodes that advance together: one call of the networks for all of them. Part of what decides
#: the bytes of an episode, since sums of matrix products depend on the number of rows.
GROUP = 25
#: Blocks that the expert goes ahead to a goal: at least, and at most.
_BLOCKS_AHEAD = (3, 8)
#: The planner's time for a goal, in units of the expert's.
_TIME_FACTOR = 2
#: Standard deviation of what is added to the commands on the way to every other goal, in those of
#: the training data: around its own way the planner needs to know what happens, too.
_NOISE = 0.3


@dataclass
class _Episode:
    """One of a group."""

    recorder: EpisodeRecorder
    rng: np.random.Generator
    full: NDArray
    truth: NDArray
    steps_left: int = 0
    noise: float = 0.0
    goal: Tensor | None = None
    fresh_goal: Observation | None = None
    states: list[Tensor] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)


class PracticeCollector:
    """Collects episodes that a checkpoint's planner drives; use it from one process.

    It plans anew after every block.

    Args:
        name: Of the scene.
        contract: The scene's.
        model: In eval mode.
        planner: Preset that drives. None: the fastest that the checkpoint has, its learned
            proposal by itself, without one the preset that suits it.
        vary: Variations of the scene.

    Raises:
        UserError: Unknown scene, or MuJoCo or OpenGL is missing.
        ContractError: The model was trained with another contract.
        ConfigError: No such preset.
        PlanningError: The preset needs a proposal, and the model has none.
    """

    def __init__(
        self,
        name: str,
        contract: Contract,
        model: WorldModel,
        planner: str | None = None,
        vary: Sequence[str] = (),
    ) -> None:
        require_contract(model.contract, contract, "the checkpoint")
        self._contract, self._model = contract, model
        self._scene: Scene = make_scene(name, seed=0, vary=vary)
        self._expert: Expert = make_expert(name, seed=0)
        check_scene_contract(self._scene, name, contract)
        self._layout = ObservationLayout.of(contract, model.config)
        preset: str | Path | None = planner
        if preset is None:
            preset = "fast" if model.proposal is not None else planner_for(model)
        lower, upper, rate, _ = contract.action_limits()
        self._lower, self._upper = np.asarray(lower), np.asarray(upper)
        config = load_planner_config(preset)
        self._solver = make_solver(
            model, config.solver, (lower, upper), config.precision,
            rate / contract.control_rate, config.objective,
        )

    def collect_all(
        self,
        paths: Sequence[Path],
        steps: int,
        picture_every: int,
        seeds: Sequence[np.random.SeedSequence],
    ) -> None:
        """Run and write some episodes side by side.

        Args:
            paths: Folders of the bags, made new.
            steps: Control steps of each, K.
            picture_every: Control steps from picture to picture, P.
            seeds: Of each: scene, goals and noise.

        Raises:
            BagError: One of ``paths`` exists already.
            UserError: The planner would not see a picture at every block.
            PlanningError: A prediction is not finite.
        """
        check_picture_every(self._model, picture_every)
        skip = self._model.frame_skip
        self._solver.reset()
        with ExitStack() as stack:
            episodes = []
            for path, seed in zip(paths, seeds, strict=True):
                scene_seed, practice_seed = (int(value) for value in seed.generate_state(2))
                truth = self._scene.reset(seed=scene_seed)
                recorder = EpisodeRecorder(
                    path,
                    self._scene,
                    self._contract,
                    picture_every,
                    {"scene_seed": scene_seed, "practice_seed": practice_seed},
                )
                episodes.append(
                    _Episode(
                        stack.enter_context(recorder),
                        np.random.default_rng(practice_seed),
                        self._scene.get_state(),
                        truth,
                    )
                )
            for first in range(0, steps, skip):
                self._see(episodes)
                self._act(episodes, self._plan(episodes), min(skip, steps - first))
            for episode in episodes:
                self._scene.set_state(episode.full)
                episode.recorder.observe(episode.truth)

    def close(self) -> None:
        """Free the camera's buffers."""
        self._scene.close()

    def _see(self, episodes: Sequence[_Episode]) -> None:
        """Begin a block: give out goals where it is time, look, and encode both."""
        seen = []
        for episode in episodes:
            if episode.steps_left <= 0:
                self._choose_goal(episode)
            self._scene.set_state(episode.full)
            pictures = episode.recorder.observe(episode.truth)
            assert pictures is not None
            state = dict(zip(self._scene.state_names, episode.truth.tolist(), strict=True))
            seen.append(self._layout.observe(pictures, state))
        new_goals = [episode for episode in episodes if episode.fresh_goal is not None]
        seen += [episode.fresh_goal for episode in new_goals]
        z = self._encode(seen)
        for episode, state in zip(episodes, z, strict=False):
            episode.states = [*episode.states, state][-self._model.history :]
        for episode, goal in zip(new_goals, z[len(episodes) :], strict=True):
            episode.goal, episode.fresh_goal = goal[: self._model.embedding_dim], None

    def _encode(self, seen: Sequence[Observation]) -> Tensor:
        """``n`` observations to ``(n, D)``, in one call."""
        pictures = torch.from_numpy(np.stack([one.picture for one in seen]))
        states = None
        if self._layout.state_names:
            states = torch.from_numpy(np.stack([one.state for one in seen]))[None]
        with torch.inference_mode():
            return self._model.encode(pictures[None], states)[0]

    def _choose_goal(self, episode: _Episode) -> None:
        """Let the expert go ahead, look, and forget that it did."""
        rng = episode.rng
        blocks = int(rng.integers(_BLOCKS_AHEAD[0], _BLOCKS_AHEAD[1] + 1))
        ahead = blocks * self._model.frame_skip
        self._scene.set_state(episode.full)
        self._expert.reset(seed=int(rng.integers(2**31)))
        truth = episode.truth
        for _ in range(ahead):
            truth = self._scene.step_control(self._expert.act(truth))
        episode.fresh_goal = self._layout.look(self._scene)
        episode.steps_left = _TIME_FACTOR * ahead
        episode.noise = _NOISE * float(rng.integers(2))

    def _plan(self, episodes: Sequence[_Episode]) -> NDArray[np.float64]:
        """Return the next block of every episode ``(B, F, A)``, in the contract's units."""
        history = torch.stack([torch.stack(episode.states) for episode in episodes])
        goal = torch.stack([episode.goal for episode in episodes])
        past = None
        if history.shape[1] > 1:
            past = torch.stack([torch.stack(episode.blocks) for episode in episodes])
        blocks = self._solver.plan(history, goal, past).blocks[:, 0]
        noise = [
            episode.noise * episode.rng.standard_normal(blocks.shape[1]) for episode in episodes
        ]
        blocks = blocks + torch.from_numpy(np.stack(noise)).to(blocks)
        with torch.no_grad():
            actions = self._model.denormalise_actions(blocks)
            actions = actions.double().numpy().clip(self._lower, self._upper)
            done = self._model.normalise_actions(torch.from_numpy(actions).float())
        for episode, block in zip(episodes, done, strict=True):
            blocks_kept = [*episode.blocks, block]
            episode.blocks = blocks_kept[max(0, len(blocks_kept) - self._model.history + 1) :]
        return actions

    def _act(
        self, episodes: Sequence[_Episode], actions: NDArray[np.float64], steps: int
    ) -> None:
        """Carry out ``steps`` control steps of a block; the first was observed already."""
        for episode, block in zip(episodes, actions, strict=True):
            self._scene.set_state(episode.full)
            for step in range(steps):
                if step:
                    episode.recorder.observe(episode.truth)
                episode.recorder.command(block[step])
                episode.truth = self._scene.step_control(block[step])
            episode.full = self._scene.get_state()
            episode.steps_left -= steps


def check_picture_every(model: WorldModel, picture_every: int) -> None:
    """Make sure that every block begins with a picture.

    Raises:
        UserError: Some do not.
    """
    skip = model.frame_skip
    if skip % picture_every:
        raise UserError(
            f"--picture-every {picture_every}: the planner needs a picture every {skip} control "
            f"steps; give a divisor of {skip}"
        )
