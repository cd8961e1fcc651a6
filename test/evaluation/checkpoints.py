"""Checkpoints for tests of ``lewm-check``: really trained, on data really collected."""

from __future__ import annotations

from pathlib import Path

from lewm_core.commands import collect, train


def collect_episodes(folder: Path, seed: int, episodes: int = 16, steps: int = 60) -> Path:
    """Let Push-T's expert fill a data set; return its folder."""
    arguments = ["push_t", "--episodes", str(episodes), "--steps", str(steps), "--workers", "1"]
    assert collect.main([*arguments, "--seed", str(seed), "--out", str(folder)]) == 0
    return folder


def train_without_sigreg(data: Path, folder: Path) -> Path:
    """Train a nano model for ten steps with lambda 0; return its checkpoint.

    It cannot plan: nothing keeps the embedding from collapsing, and ten steps teach nothing.
    """
    settings = [
        "loss.weight=0", "steps=10", "batch_size=16", "threads=1", "held_out_fraction=0.3",
        "monitor.frames=64", "monitor.final_frames=64", "monitor.clips=4",
        "refinement=null", "proposal=null",
    ]
    arguments = ["--data", str(data), "--config", "nano", "--out", str(folder), *settings]
    assert train.main(arguments) == 0
    return folder / "checkpoint"
