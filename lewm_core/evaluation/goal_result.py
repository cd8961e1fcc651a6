"""What a policy made of one task."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GoalResult:
    """What a policy made of one task.

    Attributes:
        policy: Its name.
        number: Of the goal.
        success_any: The scene's criterion was met after some step; the published figure.
        success_end: It was met after the last step.
        object_success_any: The part of it that is about the object to be moved; the same where the
            scene has no object.
        object_success_end: The same, after the last step.
        first_success_step: Control steps until the criterion was first met; None: never.
        position_error_before: m, the outcome's ``position_distance`` at the start.
        position_error_after: m, after the last step.
        angle_error_before: rad, its ``angle_distance`` at the start; NaN where the scene has none.
        angle_error_after: rad, after the last step.
        must_move: The object's part of the criterion was not met at the start already.
        met: Whether the criterion was met after each control step.
        plan_times_s: Seconds of every plan, encoding included; empty where plans were made many
            at a time, which says nothing about one.
        plans: Plans made.
        plans_failed: Plans that could not be made; the policy held instead.
    """

    policy: str
    number: int
    success_any: bool
    success_end: bool
    object_success_any: bool
    object_success_end: bool
    first_success_step: int | None
    position_error_before: float
    position_error_after: float
    angle_error_before: float
    angle_error_after: float
    must_move: bool = True
    met: tuple[bool, ...] = field(default=(), repr=False)
    plan_times_s: tuple[float, ...] = field(default=(), repr=False)
    plans: int = 0
    plans_failed: int = 0
