"""Node ``doctor``: looks at everything the planner needs, and says what is wrong and the mend.

`node` runs the checks in order; each other module is one subject: its checks take what was seen
and return findings (`report.Finding`). It listens only: nothing is ever published to a robot.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status: 0 only if nothing failed."""
    # Imported here, so that the checks can be imported without the node.
    from lewm_ros.doctor.node import main as run

    return run(argv)
