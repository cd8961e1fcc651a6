"""Node ``scene``: a MuJoCo scene as a camera and a robot.

`node` is the lifecycle node with its topics and its service; `loop` is the thread in which the
scene's time goes on, in real time or in lock step.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    from lewm_ros.scene.node import main as run

    return run(argv)
