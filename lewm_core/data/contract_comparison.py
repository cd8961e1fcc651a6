"""Do two contracts say the same? What a recording or a checkpoint was made under must be known."""

from __future__ import annotations

import math
from typing import Any

from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import ADDED_LATER
from lewm_core.errors import ContractError


def contract_differences(
    first: Contract, second: Contract, *, recordings: bool = False
) -> list[str]:
    """Return one line per key in which two contracts differ; empty when they agree.

    The names and descriptions of the contracts are for people and do not count, nor does what is
    called proprioceptive, where positions are measured and how far off they may be: that says how
    recordings and models may be used, and may be added to them later. A line reads
    ``action.fields[0].upper: 0.15 != 0.2`` (first, then second).

    Args:
        first: A contract.
        second: Another one.
        recordings: Ask only whether recordings under the one can be read under the other; then
            ``action.source`` does not count: they have both of its topics.
    """
    left, right = first.to_dict(), second.to_dict()
    for values in (left, right):
        del values["description"], values["name"]
        if recordings:
            del values["action"]["source"]
        for field in values["action"]["fields"]:
            for key in ADDED_LATER:
                field.pop(key, None)
        for state in values["states"]:
            for field in state["fields"]:
                del field["proprioceptive"]
    return list(_differences(left, right, ""))


def require_contract(trained: dict[str, Any] | None, given: Contract, what: str) -> None:
    """Make sure that a checkpoint was trained under a contract.

    Args:
        trained: The checkpoint's contract as it holds it; None: it has none, and nothing is known.
        given: What it is to be used under.
        what: The checkpoint, for the message.

    Raises:
        ContractError: The two differ; the message names the keys.
    """
    if trained is None:
        return
    differences = contract_differences(Contract.from_dict(trained, f"contract in {what}"), given)
    if differences:
        raise ContractError(
            f"{what} was trained under another contract than {given.name!r} is: "
            + "; ".join(differences)
        )


def _differences(left: Any, right: Any, key: str) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        lines = []
        for name in [*left, *(name for name in right if name not in left)]:
            inner = f"{key}.{name}" if key else name
            lines += _differences(left.get(name), right.get(name), inner)
        return lines
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        lines = []
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            lines += _differences(one, other, f"{key}[{index}]")
        return lines
    if isinstance(left, list) and isinstance(right, list) and any(
        isinstance(entry, dict) for entry in [*left, *right]
    ):
        return [f"{key}: {len(left)} entries != {len(right)} entries"]
    if isinstance(left, float) and isinstance(right, float):
        return [] if math.isclose(left, right, rel_tol=1e-9) else [f"{key}: {left!r} != {right!r}"]
    return [] if left == right else [f"{key}: {left!r} != {right!r}"]
