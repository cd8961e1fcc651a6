"""All scenes, as parameters of tests; those whose package is missing are skipped."""

from __future__ import annotations

import importlib.util

import pytest

from lewm_core.scenes import known_scenes

#: Scenes that need a package which not everybody has.
_NEEDS = {"cube": "ogbench", "cube_double": "ogbench"}

SCENES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in _NEEDS and importlib.util.find_spec(_NEEDS[name]) is None,
            reason=f"{_NEEDS.get(name)} is not installed: pip install 'lewm-ros[cube]'",
        ),
    )
    for name in known_scenes()
]
