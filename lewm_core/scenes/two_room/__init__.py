"""Two-Room: a point robot, a wall, a door whose place varies; `environment` specifies it."""

from __future__ import annotations

from lewm_core.scenes.two_room.environment import TwoRoomEnv
from lewm_core.scenes.two_room.expert import TwoRoomExpert
from lewm_core.scenes.two_room.scene import TwoRoomScene

__all__ = ["TwoRoomEnv", "TwoRoomExpert", "TwoRoomScene"]
