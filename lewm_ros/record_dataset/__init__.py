"""Node ``record_dataset``: topics of a contract to bags, one per episode.

`node` is the lifecycle node with its services. A message goes from its subscription (`topic_taps`)
to the episode that it belongs to (`episodes`, `episode_span`; `pre_trigger` before there is one),
and into that one's bag (`episode_file`) in a dataset folder (`dataset_folder`), as long as there is
room on the disk (`disk_guard`).
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit status."""
    from lewm_ros.record_dataset.node import main as run

    return run(argv)
