"""Starts and goals for closed-loop evaluation, from fresh episodes of the scripted expert.

The published protocol takes start and goal from one recorded episode, 25 control steps apart, so
that every goal can be reached. Here the episodes are made on the spot, from a seed
(`lewm_core.evaluation.provenance` says which training data rule a seed out).

There are two splits. Whoever chooses a setting by its success does so on `tuning` goals; figures
that are told to others come from `reporting` goals. The two are different streams of episodes
under every seed, so that no amount of tuning has seen a goal that is reported on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import UserError
from lewm_core.scenes import make_expert
from lewm_core.scenes.outcome import Outcome
from lewm_core.scenes.registry import Expert

#: Control steps of the expert before a start is drawn: at least, and fewer than. The first pushes
#: of an episode begin with a walk; starts lie in the middle of what training data look like.
WARM_UP_STEPS = (20, 120)

#: Split to what is added to the seeds of its streams. Nothing for reporting: figures from before
#: there were splits are of that stream.
SPLITS: dict[str, tuple[int, ...]] = {"reporting": (), "tuning": (0x74756E65,)}


class GoalScene(Protocol):
    """What evaluation needs of a scene. A: length of the action, N: of the ground truth."""

    control_period_s: float
    state_names: Sequence[str]
    cameras: Sequence[str]

    def reset(self, seed: int | None = None, state: ArrayLike | None = None) -> NDArray:
        """Begin anew; returns the ground truth ``(N,)``."""
        ...

    def step_control(self, command: ArrayLike) -> NDArray:
        """Apply a command ``(A,)`` for one control period; returns the ground truth ``(N,)``."""
        ...

    def ground_truth(self) -> NDArray:
        """Return the ground truth ``(N,)``."""
        ...

    def outcome(self, state: ArrayLike, goal_state: ArrayLike) -> Outcome:
        """Compare a ground truth ``(N,)`` with that of a goal ``(N,)``."""
        ...

    def get_state(self) -> NDArray:
        """Return everything the future depends on."""
        ...

    def set_state(self, full: ArrayLike) -> None:
        """Go back to what `get_state` returned."""
        ...

    def render(self, width: int, height: int, camera: str | None = None) -> NDArray[np.uint8]:
        """Return what a camera sees, by default the first: ``(height, width, 3)`` uint8 RGB."""
        ...


@dataclass(frozen=True, eq=False)
class StartGoal:
    """A task: from this state, make the camera see that picture.

    Attributes:
        number: Of the goal, from 0.
        start: Full state to begin from, for ``set_state``.
        start_truth: ``(N,)`` ground truth there.
        goal: Full state `distance_steps` later.
        goal_truth: ``(N,)`` ground truth there.
        goal_picture: ``(H, W, 3)`` uint8 RGB of it, by the first camera.
        actions: ``(distance_steps, A)`` the recorded commands in between.
        episode: Where it comes from, in words.
    """

    number: int
    start: NDArray[np.float64]
    start_truth: NDArray[np.float64]
    goal: NDArray[np.float64]
    goal_truth: NDArray[np.float64]
    goal_picture: NDArray[np.uint8]
    actions: NDArray[np.float64]
    episode: str = ""


def look_at_goal(
    scene: GoalScene, start_goal: StartGoal, layout: ObservationLayout
) -> NDArray[np.uint8]:
    """Return the goal as a model sees it, ``(3 C, S, S)`` uint8; the scene is left as it was.

    The pictures of all the model's cameras are taken in the goal's full state.
    """
    before = scene.get_state()
    scene.set_state(start_goal.goal)
    picture = layout.look(scene).picture
    scene.set_state(before)
    return picture


def check_split(split: str) -> None:
    """Make sure that a split is known.

    Raises:
        UserError: It is not; the message lists them.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; known splits: {', '.join(SPLITS)}")


def goals_from_expert(
    scene: GoalScene,
    number: int,
    seed: int,
    distance_steps: int = 25,
    picture_size: tuple[int, int] = (224, 224),
    scene_name: str = "push_t",
    split: str = "reporting",
) -> list[StartGoal]:
    """Draw tasks from fresh episodes of the scripted expert, one from each.

    Goal i depends on ``seed`` and i only, so ten goals are the first ten of a hundred. Nothing is
    left out: some tasks are trivial (see the do-nothing baseline beside every result).

    Args:
        scene: Driven and left in another state.
        number: Of tasks.
        seed: Of episodes and experts.
        distance_steps: Control steps between start and goal; 25 is the published protocol.
        picture_size: (width, height) px of the goal picture, as the contract's camera.
        scene_name: Whose expert drives.
        split: One of `SPLITS`.

    Raises:
        UserError: ``number`` or ``distance_steps`` is not above 0, or the split is unknown.
    """
    if number < 1 or distance_steps < 1:
        raise UserError(f"number of goals ({number}) and distance_steps ({distance_steps}) must "
                        "be 1 or more")
    check_split(split)
    expert = make_expert(scene_name)
    return [
        _draw(scene, expert, index, (seed, split), distance_steps, picture_size)
        for index in range(number)
    ]


def _draw(
    scene: GoalScene,
    expert: Expert,
    index: int,
    source: tuple[int, str],
    distance_steps: int,
    picture_size: tuple[int, int],
) -> StartGoal:
    # Named streams: the third number keeps scene, expert and start independent of one another.
    seed, split = source
    scene_seed, expert_seed, start_seed = (
        int(np.random.SeedSequence((seed, index, stream, *SPLITS[split])).generate_state(1)[0])
        for stream in range(3)
    )
    truth = scene.reset(seed=scene_seed)
    expert.reset(seed=expert_seed)
    warm_up = int(np.random.default_rng(start_seed).integers(*WARM_UP_STEPS))
    for _ in range(warm_up):
        truth = scene.step_control(expert.act(truth))
    start, start_truth = scene.get_state(), truth
    actions = []
    for _ in range(distance_steps):
        actions.append(np.array(expert.act(truth), dtype=np.float64))
        truth = scene.step_control(actions[-1])
    return StartGoal(
        number=index,
        start=start,
        start_truth=start_truth,
        goal=scene.get_state(),
        goal_truth=truth,
        goal_picture=scene.render(*picture_size),
        actions=np.stack(actions),
        episode=f"{split} seed {seed}, episode {index}, from step {warm_up}",
    )
