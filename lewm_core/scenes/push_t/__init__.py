"""Push-T: a pusher, a T-shaped block, walls; `environment` specifies it."""

from __future__ import annotations

from lewm_core.scenes.push_t.environment import PushTEnv
from lewm_core.scenes.push_t.expert import PushTExpert
from lewm_core.scenes.push_t.scene import PushTScene

__all__ = ["PushTEnv", "PushTExpert", "PushTScene"]
