"""When a goal is reached, and how far a state is from it, in terms that every scene has."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Criterion:
    """When a scene's goal counts as reached; for reports.

    Attributes:
        text: In words, with units.
        position_tolerance: m, for ``Outcome.position_distance``; None: it does not decide.
        angle_tolerance: rad, for ``Outcome.angle_distance``; None: it does not decide.
    """

    text: str
    position_tolerance: float | None = None
    angle_tolerance: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How far a state is from a goal state; a scene may say more in a subclass.

    Attributes:
        success: The scene's published criterion is met.
        object_success: Its part that is about the object which is to be moved, whatever moved it;
            the same as ``success`` where a scene has no object.
        margin: The largest ratio of a difference to its tolerance: 1 is the edge of success.
        position_distance: m, of whatever the criterion compares positions of.
        angle_distance: rad, the same for angles; NaN where the criterion has none.
    """

    success: bool
    object_success: bool
    margin: float
    position_distance: float
    angle_distance: float = math.nan

    def info(self) -> dict[str, Any]:
        """What the scene's environment tells in ``info``."""
        return {
            name: value
            for name, value in asdict(self).items()
            if not (isinstance(value, float) and math.isnan(value))
        }
