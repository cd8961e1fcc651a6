"""Reacher: a two-link arm, driven by torques; `environment` specifies it."""

from __future__ import annotations

from lewm_core.scenes.reacher.environment import ReacherEnv
from lewm_core.scenes.reacher.expert import ReacherExpert
from lewm_core.scenes.reacher.scene import ReacherScene

__all__ = ["ReacherEnv", "ReacherExpert", "ReacherScene"]
