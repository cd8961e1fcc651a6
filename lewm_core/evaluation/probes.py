"""What do frozen embeddings say about the robot's states? Linear and MLP probes, R² each.

A probe is trained on frames of the *training* episodes and scored on frames of the *held-out*
ones. A low score of the MLP probe means that a state is not in the embedding; a low score of the
linear probe alone means only that it is not laid out in a straight line, which a planner does not
mind. States come from the contract's state topics and serve for measuring only: the model never
sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lewm_core.training.regression import fit_mlp, fit_ridge, r2_score

_AXES = ("_x", "_y", "_z")
_ANGLE_UNITS = ("rad", "radian", "radians")


@dataclass(frozen=True)
class StateGroup:
    """States that are reported as one row.

    Attributes:
        label: Name of the row, e.g. ``block``.
        columns: Positions of its fields in the state vector.
        fields: Their names in the contract, e.g. ``("block_x", "block_y")``.
        angle: Whether it is an angle in radians, probed through its sine and cosine.
    """

    label: str
    columns: tuple[int, ...]
    fields: tuple[str, ...]
    angle: bool


@dataclass(frozen=True)
class ProbeScore:
    """R² of one group of states on held-out episodes.

    Attributes:
        label: The group's label.
        fields: The fields' names in the contract.
        linear: R² of the ridge probe; NaN if the states do not vary.
        mlp: R² of the MLP probe; NaN if the states do not vary.
    """

    label: str
    fields: tuple[str, ...]
    linear: float
    mlp: float

    @property
    def r2(self) -> float:
        """The score that decides whether the states are encoded: the MLP's."""
        return self.mlp


def group_states(names: Sequence[str], units: Sequence[str] | None = None) -> list[StateGroup]:
    """Group state fields the way a reader thinks of them.

    ``agent_x, agent_y`` become ``agent``; a field in radians is an angle, and is labelled
    ``angle`` if it is the only one whose name ends so; everything else is a group of its own.

    Args:
        names: Field names in the order of the state vector (S,).
        units: Their units; where missing, a name that ends in ``angle``, ``yaw`` or ``theta``
            is taken for radians.
    """
    units = list(units) if units is not None else [""] * len(names)
    angles = [_is_angle(name, unit) for name, unit in zip(names, units, strict=True)]
    named_angle = [i for i, name in enumerate(names) if angles[i] and name.endswith("_angle")]
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        label = name
        if not angles[index] and name.endswith(_AXES):
            label = name[: -len(_AXES[0])]
        elif named_angle == [index] and "angle" not in names:
            label = "angle"
        groups.setdefault(label, []).append(index)
    return [
        StateGroup(label, tuple(columns), tuple(names[i] for i in columns), angles[columns[0]])
        for label, columns in groups.items()
    ]


def probe_states(
    train_embeddings: Tensor,
    train_states: Tensor,
    held_out_embeddings: Tensor,
    held_out_states: Tensor,
    names: Sequence[str],
    units: Sequence[str] | None = None,
    *,
    epochs: int = 60,
    seed: int = 0,
) -> list[ProbeScore]:
    """Fit linear and MLP probes and score them on held-out frames.

    Args:
        train_embeddings: (N, D) of frames of training episodes, in the order of the episodes.
        train_states: (N, S), in the contract's units; rows with NaN are left out.
        held_out_embeddings: (M, D) of frames of held-out episodes.
        held_out_states: (M, S).
        names: The S field names.
        units: The S units, see `group_states`.
        epochs: Upper bound on the MLP's passes over the rows.
        seed: Seed of the MLP.

    Returns:
        One score per group, in the order of the fields. Groups without two training rows and
        one held-out row, or that do not vary, score NaN.

    Raises:
        ValueError: The numbers of rows or columns do not fit together.
    """
    if train_states.shape[1] != len(names) or held_out_states.shape[1] != len(names):
        raise ValueError(f"{len(names)} state names for states of {train_states.shape[1]}")
    groups = group_states(names, units)
    scores = []
    usable = [
        group
        for group in groups
        if _rows(train_states, group).sum() >= 20 and _rows(held_out_states, group).sum() >= 2
    ]
    predictions = _predict(
        usable, train_embeddings, train_states, held_out_embeddings, held_out_states, epochs, seed
    )
    for group in groups:
        linear, mlp = predictions.get(group.label, (math.nan, math.nan))
        scores.append(ProbeScore(group.label, group.fields, linear, mlp))
    return scores


def _predict(
    groups: list[StateGroup],
    train_z: Tensor,
    train_states: Tensor,
    held_z: Tensor,
    held_states: Tensor,
    epochs: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Return label -> (linear R², MLP R²); one MLP per group, for groups differ in difficulty."""
    scores = {}
    for group in groups:
        train_rows, held_rows = _rows(train_states, group), _rows(held_states, group)
        x, y = train_z[train_rows], _targets(train_states[train_rows], group)
        held_x, held_y = held_z[held_rows], _targets(held_states[held_rows], group)
        baseline = y.mean(0)
        linear = fit_ridge(x, y)
        mlp = fit_mlp(x, y, epochs=epochs, seed=seed)
        scores[group.label] = (
            r2_score(linear(held_x), held_y, baseline),
            r2_score(mlp(held_x), held_y, baseline),
        )
    return scores


def format_table(scores: Sequence[ProbeScore]) -> str:
    """Return the scores as a small text table."""
    width = max([len(score.label) for score in scores] + [5])
    lines = [f"{'state':<{width}}  linear R²  MLP R²"]
    lines += [f"{s.label:<{width}}  {s.linear:9.3f}  {s.mlp:6.3f}" for s in scores]
    return "\n".join(lines)


def _is_angle(name: str, unit: str) -> bool:
    if unit:
        return unit.lower() in _ANGLE_UNITS
    return name.endswith(("angle", "yaw", "theta"))


def _rows(states: Tensor, group: StateGroup) -> Tensor:
    return torch.isfinite(states[:, list(group.columns)]).all(1)


def _targets(states: Tensor, group: StateGroup) -> Tensor:
    values = states[:, list(group.columns)].double()
    return torch.cat([values.sin(), values.cos()], 1) if group.angle else values
