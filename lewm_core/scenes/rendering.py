"""Off-screen pictures from MuJoCo: which OpenGL to use, and one context per thread."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import UserError

#: Longest edge of a picture that can be rendered, pixels.
LARGEST_PICTURE = 1024

_MISSING_OPENGL = (
    "MuJoCo cannot render off screen with MUJOCO_GL={backend} ({reason}); install the system "
    "packages libegl1 libgl1 libgles2 (Debian, Ubuntu) and set MUJOCO_GL=egl"
)


def choose_backend() -> str:
    """Set ``MUJOCO_GL=egl`` where the user chose nothing and no display is there.

    Must run before MuJoCo is imported, which reads the variable once.

    Returns:
        The value in force, empty where MuJoCo decides.
    """
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if not os.environ.get("MUJOCO_GL") and not any(os.environ.get(name) for name in displays):
        os.environ["MUJOCO_GL"] = "egl"
    return os.environ.get("MUJOCO_GL", "")


def load_mujoco() -> ModuleType:
    """Import and return ``mujoco``.

    Raises:
        UserError: MuJoCo is not installed, or the OpenGL library it was told to use is missing.
    """
    choose_backend()
    # PyOpenGL tells everybody at INFO level which optional parts of it are not installed.
    logging.getLogger("OpenGL").setLevel(logging.WARNING)
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise _missing(error) from error
        raise UserError(
            "the scenes need MuJoCo, which is not installed; pip install mujoco"
        ) from error
    # PyOpenGL reports a missing libEGL as an AttributeError of None, others as ImportError.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise _missing(error) from error


def _missing(reason: object) -> UserError:
    backend = os.environ.get("MUJOCO_GL") or "<unset>"
    return UserError(_MISSING_OPENGL.format(backend=backend, reason=reason))


# An OpenGL context belongs to a thread; all models drawn in that thread share it, because freeing
# one of several contexts while another is current would destroy the other's buffers.
_thread = threading.local()
_contexts: list[Any] = []


def _free_contexts() -> None:
    while _contexts:
        _contexts.pop().free()


def free_contexts_first() -> None:
    """Let the contexts made so far be freed before anything that was imported since then ends.

    For after the import of a library that makes an OpenGL display of its own and terminates it at
    exit (dm_control): on the same display our contexts would be gone then.
    """
    if _contexts:
        atexit.unregister(_free_contexts)
        atexit.register(_free_contexts)


def _make_current(mujoco: ModuleType) -> None:
    """Make the calling thread's OpenGL context current, creating it at the first call."""
    context = getattr(_thread, "context", None)
    if context is None:
        load_triton()
        context_class = getattr(mujoco, "GLContext", None)
        if context_class is None:
            raise _missing("no such library")
        try:
            context = context_class(LARGEST_PICTURE, LARGEST_PICTURE)
        # PyOpenGL's errors derive from Exception only, and every backend has its own.
        except Exception as error:
            raise _missing(error) from error
        _thread.context = context
        if not _contexts:
            # Registered after MuJoCo's own exit handler ends the display, so it runs before it.
            atexit.register(_free_contexts)
        _contexts.append(context)
    context.make_current()


def load_triton() -> None:
    """Load triton, if it is there, before Mesa's OpenGL is.

    Both carry LLVM. Triton crashes when it is loaded after Mesa's software renderer, and torch
    loads it at odd moments (its own import, a first optimiser step); the other way round both
    work (torch 2.15, triton of the same wheel, Mesa 22.3). It takes 0.15 s, also where torch never
    comes.
    """
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton._C.libtriton")


class _Target:
    """What one thread needs to draw one model."""

    def __init__(self, mujoco: ModuleType, model: Any) -> None:
        self.scene = mujoco.MjvScene(model, maxgeom=max(100, 2 * model.ngeom))
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = 0
        self.options = mujoco.MjvOption()
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)


class PictureRenderer:
    """Renders one model through some of its cameras at any size, without shadows or reflections.

    May be used from several threads, each gets buffers of its own. `close` frees those of the
    calling thread.
    """

    def __init__(self, model: Any, cameras: Sequence[str]) -> None:
        """Prepare for ``model`` (an ``MjModel``); nothing of OpenGL is touched before `render`."""
        self._mujoco = load_mujoco()
        self._model = model
        self._cameras = {}
        for name in cameras:
            camera = self._cameras[name] = self._mujoco.MjvCamera()
            camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = model.camera(name).id
        self._local = threading.local()

    def render(
        self, data: Any, width: int, height: int, camera: str | None = None
    ) -> NDArray[np.uint8]:
        """Return the picture of ``data``, whose positions and cameras must be up to date.

        Args:
            data: The ``MjData`` to show.
            width: Of the picture, pixels.
            height: Of the picture, pixels.
            camera: Name of the camera; None: the first.

        Returns:
            (height, width, 3) uint8 RGB, a new array.

        Raises:
            UserError: No OpenGL context can be made, the picture is too large, or there is no such
                camera.
        """
        if camera is not None and camera not in self._cameras:
            raise UserError(
                f"unknown camera {camera!r}; the scene has {', '.join(self._cameras)}"
            )
        if not (1 <= width <= LARGEST_PICTURE and 1 <= height <= LARGEST_PICTURE):
            raise UserError(
                f"a picture of {width}x{height} pixels cannot be rendered; take a size from "
                f"1x1 to {LARGEST_PICTURE}x{LARGEST_PICTURE}"
            )
        mujoco = self._mujoco
        _make_current(mujoco)
        target = getattr(self._local, "target", None)
        if target is None:
            target = self._local.target = self._make_target()
        context = target.context
        if width > context.offWidth or height > context.offHeight:
            mujoco.mjr_resizeOffscreen(
                max(width, context.offWidth), max(height, context.offHeight), context
            )
        # Another model's buffers may be bound since the last picture.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        mujoco.mjv_updateScene(
            self._model,
            data,
            target.options,
            None,
            self._cameras[camera or next(iter(self._cameras))],
            mujoco.mjtCatBit.mjCAT_ALL,
            target.scene,
        )
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, target.scene, context)
        picture = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, viewport, context)
        # OpenGL's first row is the lowest.
        return np.ascontiguousarray(picture[::-1])

    def _make_target(self) -> _Target:
        try:
            return _Target(self._mujoco, self._model)
        # GLFW without a display makes no context and says nothing until here.
        except self._mujoco.FatalError as error:
            raise _missing(error) from error

    def close(self) -> None:
        """Free the calling thread's buffers; a later `render` makes new ones."""
        target = getattr(self._local, "target", None)
        if target is not None:
            _make_current(self._mujoco)
            target.context.free()
            del self._local.target
