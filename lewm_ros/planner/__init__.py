"""Node ``planner``: camera and goal picture in, commands out.

`node` is the lifecycle node with its topics, services and action; the other modules are one
subject each. What reads from top to bottom is the way of a picture: `camera_watch` judges it,
`pilot` decides what follows, `thread` encodes and plans, `lewm_ros.safety` guards every command.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    # Imported here, so that the launch files read the parameters without the model's libraries.
    from lewm_ros.planner.node import main as run

    return run(argv)
