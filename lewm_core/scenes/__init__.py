"""MuJoCo scenes: physics and cameras, Gymnasium environments, scripted experts.

Importing this registers the environments with Gymnasium (`register_scenes`) and, where no display
is there, chooses EGL for MuJoCo; MuJoCo itself is imported by the first scene that is made.

>>> from lewm_core.scenes import make_scene, make_expert
>>> scene, expert = make_scene("push_t", seed=0), make_expert("push_t", seed=0)
>>> state = scene.step_control(expert.act(scene.ground_truth()))
"""

from __future__ import annotations

from lewm_core.scenes.registry import known_scenes, make_expert, make_scene, register_scenes
from lewm_core.scenes.rendering import choose_backend

__all__ = ["known_scenes", "make_expert", "make_scene", "register_scenes"]

choose_backend()
register_scenes()
