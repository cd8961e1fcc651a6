"""Cube: an arm with a gripper picks and places cubes; `environment` specifies it."""

from __future__ import annotations

from lewm_core.scenes.cube.environment import CubeDoubleEnv, CubeEnv
from lewm_core.scenes.cube.expert import CubeExpert
from lewm_core.scenes.cube.scene import CubeDoubleScene, CubeScene

__all__ = ["CubeDoubleEnv", "CubeDoubleScene", "CubeEnv", "CubeExpert", "CubeScene"]
