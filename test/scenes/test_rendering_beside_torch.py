"""Rendering and torch in one process: both carry LLVM, and the wrong order used to crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
from lewm_core.scenes import make_scene
{before}
scene = make_scene("push_t")
scene.reset(seed=0)
scene.render(64, 64)
import torch
import torch._dynamo
scene.close()
"""


@pytest.mark.parametrize("before", ["import torch", ""], ids=["torch first", "picture first"])
def test_torch_may_load_its_compiler_after_a_picture_was_drawn(before: str) -> None:
    program = _PROGRAM.format(before=before)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
