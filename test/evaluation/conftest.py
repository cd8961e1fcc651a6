"""One scene for all tests of a module: it is put into the state that a test needs."""

import pytest

from lewm_core.scenes import make_scene


@pytest.fixture(scope="module")
def scene():
    scene = make_scene("push_t", seed=0)
    yield scene
    scene.close()
