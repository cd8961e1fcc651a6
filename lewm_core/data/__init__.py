"""Contracts, bags, aligned episodes, the frame cache and the clips that training draws from it."""

from __future__ import annotations

from lewm_core.data.contract import (
    Contract,
    contract_differences,
    load_contract,
    save_contract,
)

__all__ = ["Contract", "contract_differences", "load_contract", "save_contract"]
