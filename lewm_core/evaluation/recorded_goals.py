"""Starts and goals from recorded episodes that were held out of training.

A recording holds the ground truth, not the simulator's full state (velocities, the pusher's
target). Where the bag names the seed of its scene, as ``lewm-collect``'s do, the episode is run
again from that seed with the recorded commands, and is taken if the ground truth agrees at every
step. Else the start is the recorded pose at rest; then the replay baseline says what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.data.alignment import Signal, align_streams, read_streams
from lewm_core.data.bags import BagReader, bag_notes, find_bags
from lewm_core.data.contract import Contract
from lewm_core.data.split import is_held_out
from lewm_core.errors import BagError, UserError
from lewm_core.evaluation.goals import StartGoal, check_split
from lewm_core.scenes.registry import Scene

#: Control steps of an episode before its first start, as in `goals.WARM_UP_STEPS`.
FIRST_STEP = 20
#: m and rad by which a re-run may differ from the recording: rounding, not physics.
AGREEMENT = 1e-6
#: A stamp may lie this much behind its control tick, ns, as the aligner of bags allows.
_TOLERANCE_NS = 1_000_000


@dataclass(frozen=True, eq=False)
class RecordedGoals:
    """Tasks from recorded episodes.

    Attributes:
        goals: At most one of each episode.
        simulated_again: How many start from the simulator's full state.
        from_rest: How many start from the recorded pose at rest.
        skipped: Episode to why no task could be taken from it.
    """

    goals: list[StartGoal]
    simulated_again: int
    from_rest: int
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Episode:
    """``K`` control steps: truths ``(K, N)``, commands ``(K, A)`` (NaN: none), scene seed."""

    name: str
    truths: NDArray[np.float64]
    commands: NDArray[np.float64]
    scene_seed: int | None


def find_episodes(paths: Sequence[Path]) -> dict[str, Path]:
    """Return episode name to bag under data folders.

    Raises:
        BagError: There is no bag.
    """
    return {bag.stem if bag.is_file() else bag.name: bag for bag in find_bags(paths)}


def goals_from_bags(
    scene: Scene,
    bags: dict[str, Path],
    contract: Contract,
    number: int,
    seed: int,
    distance_steps: int = 25,
    *,
    split: str = "reporting",
    progress: Callable[[int], None] | None = None,
) -> RecordedGoals:
    """Draw tasks from recorded episodes, one from each, in an order that the seed decides.

    Args:
        scene: Driven and left in another state.
        bags: Episode name to bag; held-out ones only (see `lewm_core.evaluation.provenance`).
        contract: The bags'; its states must hold the scene's whole ground truth.
        number: Of tasks; fewer where fewer episodes can be used.
        seed: Of order and starts.
        distance_steps: Control steps between start and goal.
        split: Half of the episodes are for tuning, the others for reporting, by their names.
        progress: Called with the number of tasks so far.

    Raises:
        UserError: No episode of the split can be used; the message says why.
    """
    check_split(split)
    if number < 1 or distance_steps < 1:
        raise UserError(f"number of goals ({number}) and distance_steps ({distance_steps}) must "
                        "be 1 or more")
    missing = [name for name in scene.state_names if name not in contract.state_names]
    if missing:
        raise UserError(
            f"the contract's states lack {', '.join(missing)}: success cannot be judged on these "
            "recordings; leave --data out to evaluate on fresh episodes"
        )
    names = sorted(name for name in bags if _of_split(name, split))
    order = np.random.default_rng(seed).permutation(len(names))
    goals: list[StartGoal] = []
    again = 0
    skipped: dict[str, str] = {}
    for position in order:
        if len(goals) == number:
            break
        name = names[position]
        try:
            episode = _read(name, bags[name], scene, contract)
            goal, simulated = _task(scene, episode, contract, seed, distance_steps)
        except (BagError, _UnusableError) as error:
            skipped[name] = str(error)
            continue
        goals.append(replace(goal, number=len(goals)))
        again += simulated
        if progress is not None:
            progress(len(goals))
    if not goals:
        why = next(iter(skipped.values()), "there is none")
        raise UserError(
            f"no {split} goal {distance_steps} control steps away in {len(bags)} held-out "
            f"episodes: {why}"
        )
    return RecordedGoals(goals, again, len(goals) - again, skipped)


class _UnusableError(Exception):
    """No task can be taken from an episode."""


def _of_split(name: str, split: str) -> bool:
    # A salt, because a hash of the name alone has chosen the held-out episodes already.
    return is_held_out(f"tuning/{name}", 0.5) == (split == "tuning")


def _read(name: str, bag: Path, scene: Scene, contract: Contract) -> _Episode:
    """Put a bag on the control grid in full precision, in the scene's order of states."""
    with BagReader(bag) as reader:
        streams = read_streams(reader, contract)
    pieces = align_streams(streams, contract)
    if len(pieces) != 1:
        raise _UnusableError(f"{name}: a gap cuts the recording into {len(pieces)} pieces")
    ticks_ns = pieces[0].start_ns + np.round(
        np.arange(pieces[0].number_of_ticks) * 1e9 / contract.control_rate
    ).astype(np.int64)
    states = np.concatenate([_newest(signal, ticks_ns) for signal in streams.states], axis=1)
    columns = [list(contract.state_names).index(state) for state in scene.state_names]
    commands = np.where(
        pieces[0].action_valid[:, None], _newest(streams.actions, ticks_ns), np.nan
    )
    noted = bag_notes(bag).get("scene_seed")
    return _Episode(name, states[:, columns], commands, None if noted is None else int(noted))


def _newest(signal: Signal, ticks_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """The newest values at each tick ``(K, D)``; NaN before the first."""
    index = np.searchsorted(signal.stamps_ns, ticks_ns + _TOLERANCE_NS, side="right") - 1
    values = signal.values[np.maximum(index, 0)]
    return np.where((index >= 0)[:, None], values, np.nan)


def _task(
    scene: Scene, episode: _Episode, contract: Contract, seed: int, distance: int
) -> tuple[StartGoal, bool]:
    """Draw a start, and bring the scene there; returns whether the episode was run again."""
    usable = np.isfinite(episode.truths).all(axis=1)
    moving = np.isfinite(episode.commands).all(axis=1)
    first = min(FIRST_STEP, max(0, len(usable) - distance - 1))
    starts = [
        step
        for step in range(first, len(usable) - distance)
        if usable[step] and usable[step + distance] and moving[step : step + distance].all()
    ]
    if not starts:
        raise _UnusableError(
            f"{episode.name}: no stretch of {distance} control steps in {len(usable)} has "
            "commands and states throughout"
        )
    # A stream of its own for each episode, so that a start does not depend on the others.
    stream = np.random.SeedSequence((seed, *episode.name.encode()))
    start = starts[int(np.random.default_rng(stream).integers(len(starts)))]
    width, height = contract.camera.size
    task: dict[str, Any] = {
        "number": 0,
        "actions": episode.commands[start : start + distance],
        "episode": f"{episode.name}, from step {start}",
    }
    again = _simulate_again(scene, episode, start, distance)
    if again is not None:
        (begin, begin_truth), (end, end_truth) = again
        picture = scene.render(width, height)
    else:
        end_truth = episode.truths[start + distance]
        end, picture = _at_rest(scene, end_truth), scene.render(width, height)
        begin, begin_truth = _at_rest(scene, episode.truths[start]), scene.ground_truth()
    return (
        StartGoal(
            start=begin,
            start_truth=begin_truth,
            goal=end,
            goal_truth=end_truth,
            goal_picture=picture,
            **task,
        ),
        again is not None,
    )


def _at_rest(scene: Scene, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        scene.reset(state=truth)
    except UserError as error:
        raise _UnusableError(str(error)) from error
    return scene.get_state()


def _simulate_again(
    scene: Scene, episode: _Episode, start: int, distance: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]] | None:
    """Run the episode from its seed to the goal, which is where the scene is left.

    Returns:
        (full state, ground truth) at start and goal; None where the seed is not known, or the
        recording tells another story.
    """
    if episode.scene_seed is None or not np.isfinite(episode.commands[: start + distance]).all():
        return None
    truth = scene.reset(seed=episode.scene_seed)
    found = []
    for step in range(start + distance + 1):
        # Angles jump by a turn at plus and minus pi; a re-run that agrees jumps with them.
        if np.abs(truth - episode.truths[step]).max() > AGREEMENT:
            return None
        if step in (start, start + distance):
            found.append((scene.get_state(), truth))
        if step < start + distance:
            truth = scene.step_control(episode.commands[step])
    return found
