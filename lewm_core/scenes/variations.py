"""Variations of a scene's looks and physics, and violations of what can be.

*Variations* are named, seeded and off unless asked for. They say how far a model and a planner bear
what they were not trained on, or make training data in which more differs. One is drawn at every
reset, from the scene's own random stream.

*Violations* begin in the middle of an episode and last until its end: they are what a world model
should be surprised by (arXiv 2603.19312, section on violation of expectation).

Both are part of the full state: whoever restores a state gets the looks and the physics it had.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_core.errors import UserError

#: Factors and shifts are uniform within these.
_COLOUR_SHIFT = 0.12  # of each of red, green and blue, of each material
_LIGHT = (0.65, 1.15)  # of all colours at once
_SIZE = (0.85, 1.15)
_FRICTION = (0.6, 1.5)
_MASS = (0.6, 1.6)
_CAMERA_SHIFT = 0.025  # of what the picture shows, on each axis
_CAMERA_TURN = math.radians(3.0)
_CAMERA_ZOOM = (0.96, 1.06)

#: What of the ``MjModel`` a variation may change; put back before another one is applied.
_CHANGED = (
    "mat_rgba", "light_diffuse", "geom_size", "geom_friction", "dof_damping", "body_mass",
    "body_inertia", "cam_pos", "cam_quat", "cam_fovy", "geom_rgba", "geom_contype",
    "geom_conaffinity",
)  # fmt: skip

#: N s/m and N m s/rad: with this damping nothing that stands is moved any more.
_FROZEN = 1e6


def _colour(model: Any, rng: np.random.Generator, parts: Any) -> None:
    shift = rng.uniform(-_COLOUR_SHIFT, _COLOUR_SHIFT, (model.nmat, 3))
    model.mat_rgba[:, :3] = np.clip(model.mat_rgba[:, :3] + shift, 0.0, 1.0)


def _light(model: Any, rng: np.random.Generator, parts: Any) -> None:
    factor = rng.uniform(*_LIGHT)
    model.mat_rgba[:, :3] = np.clip(model.mat_rgba[:, :3] * factor, 0.0, 1.0)
    model.light_diffuse[:] *= factor


def _size(model: Any, rng: np.random.Generator, parts: VariedParts) -> None:
    for name in parts.sized_geoms:
        # Of a capsule the radius only: its length is that of a link.
        geom = model.geom(name).id
        capsule = model.geom_type[geom] == _CAPSULE
        model.geom_size[geom, : 1 if capsule else 3] *= rng.uniform(*_SIZE)


def _friction(model: Any, rng: np.random.Generator, parts: Any) -> None:
    factor = rng.uniform(*_FRICTION)
    model.geom_friction[:, 0] *= factor
    # What a table does to what lies on it, and a bearing to a joint, is damping here.
    model.dof_damping[:] *= factor


def _mass(model: Any, rng: np.random.Generator, parts: VariedParts) -> None:
    for name in (*parts.weighed_bodies, *parts.also_weighed):
        body, factor = model.body(name).id, rng.uniform(*_MASS)
        model.body_mass[body] *= factor
        model.body_inertia[body] *= factor


def _camera(model: Any, rng: np.random.Generator, parts: VariedParts) -> None:
    for name, view_size in parts.views.items():
        camera = model.camera(name).id
        turn = rng.uniform(-_CAMERA_TURN, _CAMERA_TURN) / 2
        shift = rng.uniform(-_CAMERA_SHIFT, _CAMERA_SHIFT, 2) * view_size
        w, x, y, z = model.cam_quat[camera]
        c, s = math.cos(turn), math.sin(turn)
        # About its own line of sight, and along its own picture plane.
        model.cam_quat[camera] = (c * w - s * z, c * x + s * y, c * y - s * x, c * z + s * w)
        right, up = _axes((w, x, y, z))
        model.cam_pos[camera] += shift[0] * right + shift[1] * up
        model.cam_fovy[camera] *= rng.uniform(*_CAMERA_ZOOM)


def _axes(quaternion: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of a picture's columns (to the right) and rows (upwards), (3,) each."""
    w, x, y, z = quaternion
    right = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    up = np.array([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
    return right, up


_CAPSULE = 3  # mjtGeom.mjGEOM_CAPSULE

_VARIATIONS: dict[str, Callable[[Any, np.random.Generator, Any], None]] = {
    "colour": _colour,
    "light": _light,
    "camera": _camera,
    "size": _size,
    "friction": _friction,
    "mass": _mass,
}


def _freeze(model: Any, parts: VariedParts) -> None:
    for body in _object_bodies(model, parts):
        first, number = model.body_dofadr[body], model.body_dofnum[body]
        model.dof_damping[first : first + number] = _FROZEN


def _ghost(model: Any, parts: VariedParts) -> None:
    geoms = np.isin(model.geom_bodyid, _object_bodies(model, parts))
    model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0


def _recolour(model: Any, parts: VariedParts) -> None:
    geoms = np.isin(model.geom_bodyid, _object_bodies(model, parts))
    materials = np.unique(model.geom_matid[geoms])
    materials = materials[materials >= 0]
    # Red becomes green, green blue, blue red.
    model.mat_rgba[materials, :3] = np.roll(model.mat_rgba[materials, :3], 1, axis=1)
    model.geom_rgba[geoms, :3] = np.roll(model.geom_rgba[geoms, :3], 1, axis=1)


def _object_bodies(model: Any, parts: VariedParts) -> NDArray[np.int64]:
    return np.array([model.body(name).id for name in parts.weighed_bodies])


#: Those that last; a teleport happens once (see `MujocoScene.violate`). In this order they are the
#: bits of `Variations.violated`.
_LASTING: dict[str, Callable[[Any, Any], None]] = {
    "freeze": _freeze,
    "ghost": _ghost,
    "recolour": _recolour,
}


def known_violations() -> list[str]:
    """Return the names that `MujocoScene.violate` takes."""
    return ["teleport", *_LASTING]


def check_violation(name: str) -> None:
    """Make sure that a violation is known.

    Raises:
        UserError: It is not; the message lists the known ones.
    """
    if name not in known_violations():
        raise UserError(
            f"unknown violation {name!r}; known violations: {', '.join(known_violations())}"
        )


def known_variations() -> list[str]:
    """Return the names that scenes take."""
    return list(_VARIATIONS)


def check_variations(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each once, in the order in which they are applied.

    Raises:
        UserError: One is unknown; the message lists the known ones.
    """
    names = tuple(names)
    for name in names:
        if name not in _VARIATIONS:
            nearest = difflib.get_close_matches(name, _VARIATIONS, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(
                f"unknown variation {name!r}; known variations: {', '.join(_VARIATIONS)}{hint}"
            )
    return tuple(name for name in _VARIATIONS if name in names)


class VariedParts:
    """What of a scene variations are about.

    Args:
        views: Names of the cameras, each with the edge of what its picture shows, m.
        sized_geoms: Geoms that ``size`` scales, each by itself.
        weighed_bodies: Bodies of the object: ``mass`` scales each by itself, violations happen to
            them.
        object_state: First column of the ground truth that is the object's, and one after the last.
        also_weighed: Further bodies that ``mass`` scales.
    """

    def __init__(
        self,
        views: Mapping[str, float],
        sized_geoms: Sequence[str] = (),
        weighed_bodies: Sequence[str] = (),
        object_state: tuple[int, int] = (0, 0),
        also_weighed: Sequence[str] = (),
    ) -> None:
        self.views = views
        self.sized_geoms, self.weighed_bodies = sized_geoms, weighed_bodies
        self.object_state = slice(*object_state)
        self.also_weighed = also_weighed


class Variations:
    """The variations and violations in force in one scene.

    Attributes:
        names: Of the variations.
        seed: What was drawn; 0: the scene as it was made.
        violated: One bit for each lasting violation that is in force.

    Args:
        mujoco: The module.
        models: The scene's ``MjModel``, and that of its pictures where it is another one; changed
            in place, alike.
        names: See `known_variations`; none: the models stay as they are.
        parts: What they are about.

    Raises:
        UserError: An unknown name.
    """

    def __init__(
        self, mujoco: Any, models: Sequence[Any], names: Iterable[str], parts: VariedParts
    ) -> None:
        self.names = check_variations(names)
        self.seed = self.violated = 0
        self._mujoco, self._models, self._parts = mujoco, models, parts
        # As they were made.
        self._nominal = [
            {name: np.array(getattr(model, name)) for name in _CHANGED} for model in models
        ]

    def apply(self, seed: int, violated: int = 0) -> None:
        """Change the models as is asked for; the same numbers do it to the bit.

        Args:
            seed: Of the variations; 0 is the scene as it was made.
            violated: One bit for each lasting violation.
        """
        if (seed, violated) == (self.seed, self.violated):
            return
        varied, self.seed, self.violated = seed != self.seed, seed, violated
        for model, nominal in zip(self._models, self._nominal, strict=True):
            for name, value in nominal.items():
                getattr(model, name)[...] = value
            for name in self.names if seed else ():
                # A stream for each: one variation does not shift another.
                rng = np.random.default_rng([seed, list(_VARIATIONS).index(name)])
                _VARIATIONS[name](model, rng, self._parts)
            if varied:
                # What MuJoCo derives from masses and sizes.
                self._mujoco.mj_setConst(model, self._mujoco.MjData(model))
            for bit, violate in enumerate(_LASTING.values()):
                if violated >> bit & 1:
                    violate(model, self._parts)

    def violate(self, name: str) -> None:
        """Let a lasting violation begin.

        Raises:
            UserError: There is none of this name.
        """
        check_violation(name)
        self.apply(self.seed, self.violated | 1 << list(_LASTING).index(name))
