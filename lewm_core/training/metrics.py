"""What a run writes down: ``metrics.jsonl``, TensorBoard events, and ``curves.png``.

Every row of ``metrics.jsonl`` is one JSON object with ``kind`` and ``step``:

* ``train``: ``total``, ``prediction``, ``sigreg``, ``lr``, ``grad_norm``, ``frames_per_s``;
* ``evaluation``: on held-out episodes, see `lewm_core.training.measure`;
* ``warning``: ``text``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from lewm_core.errors import ConfigError
from lewm_core.reading import ReadingError, parse_json, read_bounded_text

FILE = "metrics.jsonl"
#: Bytes; a row has some hundred, and a run of a million steps 50,000 rows.
_LARGEST = 2**30


class MetricsLog:
    """Rows on disk and in TensorBoard.

    A resumed run first drops the rows after the state it continues from: they will be made again,
    and a curve must not run twice over the same steps.

    Args:
        folder: The run's folder.
        step: Step that the run continues from; 0 for a new run.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._path = folder / FILE
        rows = [row for row in read_metrics(folder) if row["step"] <= step]
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(fresh, self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one row; numbers that are not finite become null, for JSON has none."""
        row = {"kind": kind, "step": step} | {key: _plain(value) for key, value in values.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for key, value in row.items():
            if key not in ("kind", "step") and isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{key}", value, step)
        if kind == "warning":
            self._board.add_text("warning", str(values.get("text", "")), step)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run; a last line cut short by a kill is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        text = read_bounded_text(path, _LARGEST)
    except ReadingError as error:
        raise ConfigError(f"{path}: {error}; move it away to go on without the curves") from error
    rows = []
    for line in text.splitlines():
        try:
            row = parse_json(line)
        except ReadingError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def draw_curves(folder: Path) -> Path:
    """Draw ``curves.png`` from the rows in ``metrics.jsonl``; return its path."""
    # Here, not at the top: matplotlib takes a second to import and is needed once in a while.
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    train = [row for row in rows if row.get("kind") == "train"]
    evaluation = [row for row in rows if row.get("kind") == "evaluation"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_loss(axes[0][0], train)
    _draw_predictions(axes[0][1], evaluation)
    _draw_representation(axes[1][0], evaluation)
    _draw_probes(axes[1][1], evaluation)
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.title.set_fontsize(11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    path = folder / "curves.png"
    fresh = folder / "curves.new.png"
    figure.savefig(fresh, dpi=110)
    os.replace(fresh, path)
    return path


def _draw_loss(axis: Any, rows: list[dict[str, Any]]) -> None:
    axis.set_title("training loss")
    for key, label in (("prediction", "prediction"), ("sigreg", "SIGReg"), ("total", "total")):
        axis.plot(*_series(rows, key), label=label, linewidth=1)
    if rows:
        axis.set_yscale("log")


def _draw_predictions(axis: Any, rows: list[dict[str, Any]]) -> None:
    axis.set_title("held-out prediction error / variance (dotted: 'nothing changes')")
    blocks = sorted(
        int(key.rsplit("_", 1)[1])
        for key in (rows[-1] if rows else {})
        if key.startswith("prediction_error_")
    )
    shown = sorted({blocks[0], blocks[len(blocks) // 2], blocks[-1]}) if blocks else []
    for number, block in enumerate(shown):
        colour = f"C{number}"
        plural = "s" if block > 1 else ""
        axis.plot(
            *_series(rows, f"prediction_error_{block}"),
            color=colour,
            marker="o",
            markersize=3,
            label=f"{block} block{plural} ahead",
        )
        axis.plot(
            *_series(rows, f"nothing_changes_{block}"),
            color=colour,
            linestyle=":",
        )
    if shown:
        axis.set_yscale("log")


def _draw_representation(axis: Any, rows: list[dict[str, Any]]) -> None:
    axis.set_title("representation, held-out")
    axis.plot(*_series(rows, "effective_rank"), marker="o", markersize=3, label="effective rank")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("effective rank")
    twin = axis.twinx()
    twin.plot(
        *_series(rows, "std_mean"),
        color="C1",
        linestyle="--",
        label="standard deviation (right, SIGReg aims at 1)",
    )
    twin.set_ylim(0, 1.5)
    twin.spines["top"].set_visible(False)
    # One legend for both scales.
    axis.plot([], [], color="C1", linestyle="--", label="mean standard deviation (right scale)")


def _draw_probes(axis: Any, rows: list[dict[str, Any]]) -> None:
    axis.set_title("R² of MLP probes, held-out")
    last = rows[-1] if rows else {}
    for key in last:
        if key.startswith("probe_r2_"):
            axis.plot(
                *_series(rows, key), marker="o", markersize=3, label=key.removeprefix("probe_r2_")
            )
    regions = [key for key in last if key.startswith("region_r2_")]
    for number, key in enumerate(regions):
        axis.plot(
            *_series(rows, key),
            color="0.6",
            linestyle=":",
            linewidth=1,
            label="regions" if number == 0 else None,
        )
    axis.set_ylim(-0.1, 1.02)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
