"""Which episodes are held out: decided by a hash of the name, the same for ever and everywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from lewm_core.errors import UserError


def is_held_out(name: str, fraction: float = 0.1) -> bool:
    """Say whether an episode is held out of training.

    More recordings never move an episode to the other side. Pieces of one recording (``NAME``,
    ``NAME+1``) stay together: their pictures are too much alike.

    Args:
        name: Of the episode.
        fraction: Share of episodes that are held out, 0 to 1.
    """
    recording = re.sub(r"\+\d+$", "", name)
    digest = hashlib.sha256(recording.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def split_episodes(names: Iterable[str], fraction: float = 0.1) -> tuple[list[str], list[str]]:
    """Split episode names into those to train on and those held out.

    Args:
        names: Of all episodes; duplicates are dropped.
        fraction: Share of episodes that are held out, above 0 and below 1.

    Returns:
        (training names, held-out names), each in the order given.

    Raises:
        UserError: One side would be empty.
    """
    unique = list(dict.fromkeys(names))
    held_out = [name for name in unique if is_held_out(name, fraction)]
    trained = [name for name in unique if not is_held_out(name, fraction)]
    if not held_out:
        raise UserError(
            f"none of the {len(unique)} episodes is held out at held_out_fraction {fraction:g}; "
            "record more episodes, or raise held_out_fraction"
        )
    if not trained:
        raise UserError(
            f"all {len(unique)} episodes are held out at held_out_fraction {fraction:g}; "
            "record more episodes, or lower held_out_fraction"
        )
    return trained, held_out
