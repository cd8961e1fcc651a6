"""Can this checkpoint plan? Diagnostics on held-out episodes, before an arm moves.

Nothing is driven: everything is measured on recordings that the model was not trained on, in about
a minute on one core. The loss of a run does not tell (docs/checking.md): every figure here
is there because some kind of useless model looks fine in all the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lewm_core
from lewm_core.errors import UserError
from lewm_core.evaluation.check.content import Content, measure_content
from lewm_core.evaluation.check.data import FEW_EPISODES, HORIZON, CheckData, open_check_data
from lewm_core.evaluation.check.latent import (
    LatentSpread,
    distance_follows_steps,
    measure_spread,
)
from lewm_core.evaluation.check.planning import CostFigures, measure_costs
from lewm_core.evaluation.check.thresholds import THRESHOLDS, judge
from lewm_core.evaluation.probes import ProbeScore
from lewm_core.model.verdict import Verdict, finite
from lewm_core.model.world_model import WorldModel
from lewm_core.training.measure import embed, measure_predictions
from lewm_core.validation import suggestion

_WORDS = {"can plan": "ok", "marginal": "marginal", "cannot plan": "BAD", None: "not judged"}


@dataclass(frozen=True)
class CheckSettings:
    """How much is measured; the defaults are those that the thresholds were calibrated with.

    Attributes:
        frames: Pictures for probes and spread, see `CheckData.probe_frames`.
        clips: Clips on which predictions are measured.
        goals: Starts at which recorded actions are ranked among random ones.
        candidates: Random sequences per start.
        episodes: Episodes along which the distance to a goal is followed.
        seed: Of everything that is drawn.
        leave_out: State fields that no goal depends on, such as the yaw of a gripper that only has
            to let go: how well they are encoded is told, and not judged.
    """

    frames: int = 8000
    clips: int = 512
    goals: int = 200
    candidates: int = 256
    episodes: int = 100
    seed: int = 0
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lowest = {"frames": 100, "clips": 1, "goals": 1, "candidates": 4, "episodes": 1, "seed": 0}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be {least} at least, got {getattr(self, name)}")


@dataclass(frozen=True)
class CheckResult:
    """Everything that was measured, and what it means.

    Attributes:
        verdict: To be stored with the checkpoint.
        spread: Of the latent.
        costs: Of recorded and random actions.
        content: Probes and regions.
        prediction_error: Error over variance, 1 to `HORIZON` blocks ahead.
        nothing_changes: The same for a predictor that repeats the last embedding.
        episodes: Held-out episodes that were used.
        excluded: Episodes left out because the model was trained on them.
        warnings: What limits the verdict.
    """

    verdict: Verdict
    spread: LatentSpread
    costs: CostFigures
    content: Content
    prediction_error: list[float]
    nothing_changes: list[float]
    episodes: int
    excluded: int
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return flat figures for ``--json``; ``None`` where one is not finite."""
        return finite(
            {
                "verdict": self.verdict.verdict,
                "reason": self.verdict.reason,
                "data": list(self.verdict.data),
                "date": self.verdict.date,
                "version": self.verdict.version,
                **self.verdict.measured,
                "direction_variance": self.spread.direction_variance,
                "warnings": self.warnings,
            }
        )


def run_check(
    checkpoint: str | Path,
    paths: Sequence[Path],
    settings: CheckSettings | None = None,
    *,
    cache_dir: Path | None = None,
) -> CheckResult:
    """Measure a checkpoint on the episodes of some bags that it was not trained on.

    The same checkpoint, bags and settings give the same figures on the same machine.

    Args:
        checkpoint: Folder, or name of a shipped one.
        paths: Dataset folders, bag folders or bag files.
        settings: How much to measure.
        cache_dir: Of the frame cache; default: the user's.

    Raises:
        UserError: The checkpoint or the bags cannot be used, or no episode is held out.
    """
    settings = settings or CheckSettings()
    model = lewm_core.load(checkpoint)
    data = open_check_data(checkpoint, model, paths, cache_dir)
    for name in settings.leave_out:
        if name not in data.contract.state_names:
            raise UserError(
                f"--leave-out {name}: contract {data.contract.name!r} has no such state field; "
                + suggestion(name, data.contract.state_names)
            )
    fitted, scored = data.probe_frames(settings.frames)
    fitted_z, scored_z = embed(model, fitted.frames), embed(model, scored.frames)
    embeddings = scored_z if data.trained else torch.cat([fitted_z, scored_z])
    if not bool(torch.isfinite(embeddings).all()):
        raise UserError(f"{checkpoint}: its embeddings are not finite; train it again")
    spread = measure_spread(embeddings, settings.seed)
    errors, unchanged, one_block = measure_predictions(model, data.clips, settings.clips)
    costs = measure_costs(
        model, data, goals=settings.goals, candidates=settings.candidates, seed=settings.seed
    )
    content = measure_content(
        fitted_z, fitted, scored_z, scored,
        data.contract.state_names, data.contract.state_units, settings.seed,
    )
    along = [
        embed(model, torch.from_numpy(np.asarray(data.cache.frames[rows])))
        for rows in data.episode_frames(settings.episodes)
    ]
    measured = _figures(spread, costs, content, errors, unchanged, settings.leave_out)
    measured |= {
        "one_block_distance": one_block,
        "step_correlation": distance_follows_steps(along),
        "episodes": len(data.episodes),
        "episodes_excluded": data.excluded,
        "seed": settings.seed,
    }
    word, reason = judge(measured)
    found = Verdict(
        verdict=word,
        reason=_name_the_worst(reason, content, settings.leave_out),
        measured=finite(measured),
        data=tuple(data.sources),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=lewm_core.__version__,
    )
    return CheckResult(
        verdict=found,
        spread=spread,
        costs=costs,
        content=content,
        prediction_error=errors,
        nothing_changes=unchanged,
        episodes=len(data.episodes),
        excluded=data.excluded,
        warnings=_warnings(data, content, model),
    )


def _figures(
    spread: LatentSpread,
    costs: CostFigures,
    content: Content,
    errors: list[float],
    unchanged: list[float],
    leave_out: Sequence[str] = (),
) -> dict[str, float]:
    """Return the figures under their stable keys; NaN where one cannot be measured."""
    figures: dict[str, float] = {
        f"prediction_error_{block}": value for block, value in enumerate(errors, start=1)
    }
    figures |= {f"nothing_changes_{block}": value for block, value in enumerate(unchanged, 1)}
    # Nothing moves in the recordings: then there is nothing to predict, and no ratio.
    figures["prediction_ratio"] = errors[-1] / unchanged[-1] if unchanged[-1] > 0 else math.nan
    figures |= {
        "effective_rank": spread.effective_rank,
        "std_mean": spread.std_mean,
        "std_min": spread.std_min,
        "sigreg": spread.sigreg,
        "direction_variance_largest": spread.direction_variance[0],
        "direction_variance_median": float(np.median(spread.direction_variance)),
        "direction_variance_smallest": spread.direction_variance[-1],
        "true_rank": costs.true_rank,
        "true_rank_noise": costs.true_rank_noise,
        "cost_spread": costs.cost_spread,
        "true_gain": costs.true_gain,
        "best_gain": costs.best_gain,
        "goals": costs.goals,
        "candidates": costs.candidates,
    }
    for score in content.states:
        figures[f"probe_r2_linear_{score.label}"] = score.linear
        figures[f"probe_r2_{score.label}"] = score.mlp
    for name, r2 in content.regions.items():
        figures[f"region_r2_{name.replace(' ', '_')}"] = r2
    known = [score.mlp for score in _judged(content, leave_out)]
    shares = content.region_share()
    figures["state_r2"] = min(known, default=math.nan)
    figures["region_share"] = min(shares.values(), default=math.nan)
    return figures


def _judged(content: Content, leave_out: Sequence[str]) -> list[ProbeScore]:
    """The probes that count: of states that vary, less those that no goal depends on."""
    return [
        score
        for score in content.states
        if math.isfinite(score.mlp) and not set(score.fields) <= set(leave_out)
    ]


def _name_the_worst(reason: str, content: Content, leave_out: Sequence[str]) -> str:
    """Say which state or region it is, where the reason speaks of one, and what is left out."""
    known = _judged(content, leave_out)
    if known:
        worst = min(known, key=lambda score: score.mlp)
        reason = reason.replace(
            "a state of the scene is not in the embedding",
            f"{', '.join(worst.fields)} {'is' if len(worst.fields) == 1 else 'are'} not in the "
            "embedding",
        )
    shares = content.region_share()
    if shares:
        worst_region = min(shares, key=shares.__getitem__)
        reason = reason.replace(
            "something that moves in the picture is not",
            f"something that moves in the {worst_region} of the picture is not",
        )
    if leave_out:
        reason += f"; not judged: {', '.join(leave_out)}"
    return reason


def _warnings(data: CheckData, content: Content, model: WorldModel) -> list[str]:
    found = []
    if len(data.episodes) < FEW_EPISODES:
        found.append(
            f"only {len(data.episodes)} held-out episodes: with fewer than {FEW_EPISODES} the "
            "verdict depends on which they happen to be"
        )
    if not content.states:
        found.append(
            "the bags have no state topics: whether a small thing or an angle is encoded was "
            "judged by the picture alone, which sees less"
        )
    if model.metadata.get("trained_episodes") == []:
        found.append("the checkpoint names no trained episodes: all of the data were used")
    return found


def format_result(result: CheckResult) -> str:
    """Return everything as tables for a terminal, the verdict last."""
    measured = result.verdict.measured
    lines = [
        f"{result.episodes} held-out episodes"
        + (f" ({result.excluded} it was trained on are left out)" if result.excluded else ""),
        "",
        "blocks ahead       " + " ".join(f"{block:>7d}" for block in range(1, HORIZON + 1)),
        "prediction error   " + _row(result.prediction_error) + "   over the variance",
        "'nothing changes'  " + _row(result.nothing_changes),
        "",
        f"variance along the {len(result.spread.direction_variance)} directions: "
        f"{measured['direction_variance_largest']:.3g} largest, "
        f"{measured['direction_variance_median']:.3g} median, "
        f"{measured['direction_variance_smallest']:.3g} smallest; SIGReg "
        f"{measured['sigreg']:.3g} (near 1: spread like a Gaussian; that alone proves nothing)",
        f"recorded actions cover {measured['true_gain']:.0%} of the way to the goal in the model, "
        f"the best of {measured['candidates']} random ones {measured['best_gain']:.0%}",
    ]
    if result.content.states:
        lines += ["", "state       linear R²  MLP R²"]
        lines += [f"{s.label:<10}  {s.linear:9.2f}  {s.mlp:6.2f}" for s in result.content.states]
    width = max(len(row.label) for row in THRESHOLDS)
    lines += ["", f"{'figure':<{width}}  {'value':>8}  {'to plan':>9}  {'limit':>7}"]
    for row in THRESHOLDS:
        value = measured.get(row.key)
        sign = ">=" if row.better == "high" else "<="
        shown = "-" if value is None else f"{value:.3g}"
        lines.append(
            f"{row.label:<{width}}  {shown:>8}  {sign + f' {row.can:g}':>9}  {row.cannot:>7g}  "
            f"{_WORDS[row.judge(value)]}"
        )
    lines += [f"warning: {text}" for text in result.warnings]
    lines += ["", f"verdict: {result.verdict.verdict}", result.verdict.reason]
    return "\n".join(lines)


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:7.3f}" for value in values)
