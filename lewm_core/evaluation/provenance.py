"""Was the checkpoint trained on what it is evaluated on? Then there is no evaluation.

The rule for goals from a seed is coarser than it need be, so that nobody has to take it on trust:
a seed that training data were collected with cannot be evaluated on, though ``lewm-collect`` and
`goals_from_expert` draw different episodes from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lewm_core.data.origin import Origin, origins_of_names
from lewm_core.errors import UserError


def training_origins(metadata: Mapping[str, Any]) -> list[Origin]:
    """Return the collected datasets a checkpoint was trained on.

    Args:
        metadata: Of the loaded model. ``data_sources`` is what ``lewm-train`` took from the
            datasets; checkpoints from before that are judged by the names of their episodes.
    """
    recorded = [
        Origin(str(entry["name"]), str(entry["scene"]), tuple(int(s) for s in entry["seeds"]))
        for entry in metadata.get("data_sources", [])
    ]
    known = {(origin.scene, seed) for origin in recorded for seed in origin.seeds}
    names = [*metadata.get("trained_episodes", []), *metadata.get("held_out_episodes", [])]
    return recorded + [
        origin
        for origin in origins_of_names(names)
        if any((origin.scene, seed) not in known for seed in origin.seeds)
    ]


def refuse_trained_seed(
    checkpoint: str, metadata: Mapping[str, Any], scene: str, seed: int
) -> None:
    """Make sure that no training data were collected from the evaluation's scene and seed.

    Raises:
        UserError: They were; the message names checkpoint, dataset, and the evaluation's seed.
    """
    for origin in training_origins(metadata):
        if origin.scene == scene and seed in origin.seeds:
            raise UserError(
                f"{checkpoint} was trained on dataset {origin.name!r}, collected from {scene} "
                f"with seed {seed}: the evaluation of {scene} with seed {seed} would not be on "
                "unseen episodes; choose another --seed"
            )


def knows_its_data(metadata: Mapping[str, Any]) -> bool:
    """Whether a checkpoint says which episodes it was trained on."""
    return bool(metadata.get("trained_episodes"))


def held_out_names(
    checkpoint: str, metadata: Mapping[str, Any], available: Sequence[str], where: str
) -> list[str]:
    """Return those of the recorded episodes that the checkpoint held out of its training.

    Args:
        checkpoint: For the message.
        metadata: Of the loaded model.
        available: Names of the recorded episodes.
        where: Where those lie, for the message.

    Raises:
        UserError: None is; training episodes are never taken in their place.
    """
    trained = set(metadata.get("trained_episodes", []))
    held_out = set(metadata.get("held_out_episodes", [])) - trained
    chosen = [name for name in available if name in held_out]
    if not chosen:
        used = sum(name in trained for name in available)
        raise UserError(
            f"{where}: none of its {len(available)} episodes was held out of the training of "
            f"{checkpoint} ({used} were trained on, the others it does not know); give the data "
            "it was trained with, or leave --data out to evaluate on fresh episodes"
        )
    return chosen
