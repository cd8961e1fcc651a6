"""From figures to a verdict: every threshold of ``lewm-check`` is in `THRESHOLDS`, none elsewhere.

They come from checkpoints whose success in closed loop is known
(``benchmarks/check_calibration.py``, table in docs/checking.md). Each figure has two limits: beyond
``cannot`` no checkpoint planned, all that planned are within ``can``; between the two lies what is
called marginal. One figure that says *cannot plan* is enough, and to be called *can plan*
all of them have to say so, for every way to fail shows in another figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lewm_core.model.verdict import VerdictName


@dataclass(frozen=True)
class Threshold:
    """What one figure says about planning.

    Attributes:
        key: Of the figure in the result.
        label: For tables.
        better: Whether planning wants it ``low`` or ``high``.
        can: On this side of it the figure speaks for planning.
        cannot: Beyond it the checkpoint cannot plan.
        fault: What it means to miss it; ``{value}`` stands for the figure.
        mend: What to do.
        required: Whether a figure that could not be measured means that the model is broken; the
            others are passed over (states that no bag has, episodes that are too short).
    """

    key: str
    label: str
    better: Literal["low", "high"]
    can: float
    cannot: float
    fault: str
    mend: str
    required: bool = True

    def judge(self, value: float | None) -> VerdictName | None:
        """Return what the figure says; None if it was not measured and may be missing."""
        if value is None or not math.isfinite(value):
            return "cannot plan" if self.required else None
        sign = 1.0 if self.better == "high" else -1.0
        if sign * value >= sign * self.can:
            return "can plan"
        return "cannot plan" if sign * value < sign * self.cannot else "marginal"

    def sentence(self, value: float | None) -> str:
        """Say what is wrong, against which threshold, and what to do."""
        if value is None or not math.isfinite(value):
            return f"{self.label} is not finite: the weights are broken; train again"
        side = "at least" if self.better == "high" else "at most"
        return (
            f"{self.fault.format(value=f'{value:.3g}')} ({self.label} {value:.3g}; {side} "
            f"{self.can:g} to plan, and {self.cannot:g} is the limit): {self.mend}"
        )


#: In the order of what causes what: where the first fails, the later ones follow from it.
THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        "std_mean", "deviation per dimension", "high", can=0.3, cannot=0.1,
        fault="the representation has collapsed: all pictures look alike to the model",
        mend="raise loss.weight (lambda), or lower optimiser.learning_rate",
    ),
    Threshold(
        "effective_rank", "effective rank", "high", can=6.0, cannot=3.0,
        fault="only {value} directions of the embedding are in use, too few to hold the scene",
        mend="raise loss.weight (lambda) or model.embedding_dim, and train longer",
    ),
    Threshold(
        "prediction_ratio", "error 5 blocks ahead over 'nothing changes'", "low",
        can=0.10, cannot=0.25,
        fault="predictions five blocks ahead are too poor: their error is {value} of that of "
        "saying that nothing changes",
        mend="train longer, on data in which the robot moves what it is to move; look whether "
        "command and camera are aligned in time",
    ),
    Threshold(
        "true_rank", "recorded actions among random ones", "low", can=0.003, cannot=0.015,
        fault="the model takes {value} of all random action sequences for better than the one "
        "that led to the goal",
        mend="train longer; look whether the commands in the bags are those the robot executed",
    ),
    Threshold(
        "cost_spread", "spread of costs over candidates", "high", can=0.15, cannot=0.05,
        fault="the cost is nearly the same whatever the robot does: a search has nothing to go by",
        mend="look whether the commands in the bags move the robot; raise loss.weight (lambda)",
    ),
    Threshold(
        "step_correlation", "latent distance with steps to go", "high", can=0.6, cannot=0.3,
        fault="the distance to a goal does not shrink on the way to it",
        mend="train longer, or raise loss.weight (lambda)",
        required=False,
    ),
    Threshold(
        "state_r2", "worst state, MLP probe R²", "high", can=0.9, cannot=0.5,
        fault="a state of the scene is not in the embedding",
        mend="record data in which it changes, raise loss.weight (lambda), train longer, set "
        "loss.rollout_steps=4, or use the keypoint encoder",
        required=False,
    ),
    Threshold(
        "region_share", "worst picture region, R² over that of the pictures' components", "high",
        can=0.85, cannot=0.65,
        fault="something that moves in the picture is not in the embedding",
        mend="record data in which it moves, raise loss.weight (lambda), train longer, or crop "
        "the camera to what matters",
        required=False,
    ),
)

_SEVERITY: tuple[VerdictName, ...] = ("can plan", "marginal", "cannot plan")


def judge(measured: Mapping[str, float | None]) -> tuple[VerdictName, str]:
    """Return the verdict on a checkpoint, and the reason in words.

    Args:
        measured: Figure by key, see `lewm_core.evaluation.check.run_check`.

    Returns:
        (verdict, reason). The reason names the figures that decided, the first cause first.
    """
    said = {row.key: row.judge(measured.get(row.key)) for row in THRESHOLDS}
    verdict = max(
        (word for word in said.values() if word is not None), key=_SEVERITY.index
    )
    if verdict == "can plan":
        judged = sum(word is not None for word in said.values())
        return verdict, f"all {judged} figures that were judged are on the good side"
    deciding = [row for row in THRESHOLDS if said[row.key] == verdict]
    reason = deciding[0].sentence(measured.get(deciding[0].key))
    if len(deciding) > 1:
        others = ", ".join(row.label for row in deciding[1:])
        reason += f". The same say: {others}"
    return verdict, reason
