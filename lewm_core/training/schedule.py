"""Learning rate over a run: linear warm-up, then a cosine down to a floor."""

from __future__ import annotations

import math


def learning_rate(
    progress: float, warmup: float, peak: float, final_fraction: float = 0.0
) -> float:
    """Return the learning rate at a point of the run.

    Args:
        progress: Part of the run that is done, 0 to 1. It is a fraction rather than a step, so
            that a run bounded by minutes follows the same curve as one bounded by steps.
        warmup: Part of the run in which the rate rises linearly from 0 to ``peak``.
        peak: Highest rate.
        final_fraction: The rate at the end, as a part of ``peak``.

    Raises:
        ValueError: ``warmup`` is not in [0, 1).
    """
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warm-up must be a part of the run in [0, 1), got {warmup}")
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return peak * progress / warmup
    cosine = 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))
    return peak * (final_fraction + (1.0 - final_fraction) * cosine)


def run_progress(step: int, steps: int, elapsed_s: float, minutes: float | None) -> float:
    """Return the part of the run that is done: by steps, or by time where that is further.

    Args:
        step: Optimiser steps already made.
        steps: Steps of the whole run.
        elapsed_s: Seconds spent training so far, over all resumptions.
        minutes: Time budget of the whole run, or None.
    """
    progress = step / steps
    if minutes is not None:
        progress = max(progress, elapsed_s / (60.0 * minutes))
    return min(progress, 1.0)
