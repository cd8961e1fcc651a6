"""Names of scenes, and what happens where MuJoCo cannot render."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lewm_core.errors import UserError
from lewm_core.scenes import known_scenes, make_expert, make_scene


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"}
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_unknown_scenes_list_the_known_ones() -> None:
    assert "push_t" in known_scenes()
    for make in (make_scene, make_expert):
        with pytest.raises(UserError, match="known scenes: .*push_t.*did you mean push_t"):
            make("pusht")


def test_headless_import_chooses_egl_and_leaves_mujoco_alone() -> None:
    code = (
        "import os, sys, lewm_core.scenes;"
        "print(os.environ['MUJOCO_GL'], 'mujoco' in sys.modules)"
    )
    assert run_python(code).stdout.split() == ["egl", "False"]


def test_what_the_user_chose_stays() -> None:
    code = "import os, lewm_core.scenes; print(os.environ.get('MUJOCO_GL'))"
    assert run_python(code, MUJOCO_GL="osmesa").stdout.split() == ["osmesa"]
    assert run_python(code, DISPLAY=":7").stdout.split() == ["None"]


RENDER = """
from lewm_core.errors import UserError
from lewm_core.scenes import make_scene
scene = make_scene("push_t", seed=0)
print(scene.step_control((0.0, 0.0)).shape)
try:
    scene.render(64, 64)
except UserError as error:
    print(error)
else:
    print("rendered")
"""


def test_physics_works_without_opengl_and_pictures_name_the_packages() -> None:
    done = run_python(RENDER, MUJOCO_GL="disable")
    shape, message = done.stdout.strip().splitlines()
    assert shape == "(5,)"
    assert "libegl1 libgl1 libgles2" in message and "MUJOCO_GL=disable" in message


def test_rendering_process_ends_without_complaints() -> None:
    done = run_python(RENDER, MUJOCO_GL="egl")
    assert done.stdout.strip().splitlines()[-1] == "rendered"
    assert done.returncode == 0
    assert done.stderr == ""
