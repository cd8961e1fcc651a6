"""Rendering and torch in one process: both carry LLVM, and the wrong order used to crash."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import torch
from lewm_core.scenes import make_scene
scene = make_scene("push_t")
scene.reset(seed=0)
scene.render(64, 64)
import torch._dynamo
scene.close()
"""


def test_torch_may_load_its_compiler_after_a_picture_was_drawn() -> None:
    finished = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
