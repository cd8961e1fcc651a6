"""Cube: an arm with a gripper picks and places a cube; `environment` specifies it."""

from __future__ import annotations

from lewm_core.scenes.cube.environment import CubeEnv
from lewm_core.scenes.cube.expert import CubeExpert
from lewm_core.scenes.cube.scene import CubeScene

__all__ = ["CubeEnv", "CubeExpert", "CubeScene"]
