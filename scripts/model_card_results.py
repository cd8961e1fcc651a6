"""Puts the tables of lewm-eval and the verdict of lewm-check into a checkpoint's model card.

    python scripts/model_card_results.py RESULTS CARD

RESULTS is the folder that scripts/make_nano.sh writes: ``eval-NAME.json`` with one or more
checkpoints each, and ``check.json`` beside every checkpoint's folder. What stood under "Planning"
in CARD is replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADING = "## Planning"
#: In this order; those that were not evaluated are left out.
NAMES = ("default", "fast", "paper", "search", "far")


def main(results: Path, card: Path) -> None:
    """Write the card anew."""
    records = {
        name: json.loads((results / f"eval-{name}.json").read_text())
        for name in NAMES
        if (results / f"eval-{name}.json").is_file()
    }
    if not records:
        raise SystemExit(f"{results}: no eval-NAME.json; run scripts/make_nano.sh")
    text = card.read_text().split(HEADING)[0].rstrip()
    lines = [text, "", HEADING, "", *_protocol(next(iter(records.values()))), ""]
    lines += [
        "| planner | protocol | goals | training seed | any time | at the end | plan, p50 / p95 |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records.values():
        lines += _rows(record)
    lines += ["", *_baselines(records), "", *_verdicts(results), ""]
    card.write_text("\n".join(lines))


def _protocol(record: dict[str, Any]) -> list[str]:
    return [
        f"`lewm-eval`, goals of fresh expert episodes (seed {record['seed']}, "
        f"split {record['split']}: no setting was chosen on them), success by the published "
        "criterion, 95 % Wilson interval in brackets. Plans are timed one at a time on "
        f"{record['machine']}, {record['threads']} thread(s).",
    ]


def _rows(record: dict[str, Any]) -> list[str]:
    rows = []
    tables = record["tables"]
    distances = sorted({table["distance_steps"] for table in tables})
    for distance in distances:
        ours = [table for table in tables if table["distance_steps"] == distance]
        for table in ours:
            rows.append(_row(record, distance, _seed(table), table))
        if len(ours) > 1:
            mean = {key: sum(table[key] for table in ours) / len(ours)
                    for key in ("success_any", "success_final")}
            rows.append(
                f"| `{record['planner']}` | {record['protocol']} | {record['episodes']}, "
                f"{distance} steps | **mean** | "
                f"**{_percent(mean['success_any'])}** | **{_percent(mean['success_final'])}** | |"
            )
    return rows


def _row(record: dict[str, Any], distance: int, seed: str, table: dict[str, Any]) -> str:
    def rate(key: str, interval: str) -> str:
        low, high = table[interval]
        return f"{_percent(table[key])} ({100 * low:.0f} to {100 * high:.0f})"

    times = (f"{table['plan_ms_p50']:.0f} / {table['plan_ms_p95']:.0f} ms"
             if table.get("plan_ms_p50") is not None else "")
    return (
        f"| `{record['planner']}` | {record['protocol']} | "
        f"{record['episodes']}, {distance} steps | {seed} | "
        f"{rate('success_any', 'ci95_any')} | {rate('success_final', 'ci95_final')} | {times} |"
    )


def _seed(table: dict[str, Any]) -> str:
    parts = Path(str(table["checkpoint"])).parts
    return next((part.removeprefix("seed") for part in parts if part.startswith("seed")), "0")


def _baselines(records: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["The same goals without a planner, at any time:", ""]
    seen = set()
    for record in records.values():
        for table in record["tables"]:
            distance = table["distance_steps"]
            if distance in seen:
                continue
            seen.add(distance)
            rates = ", ".join(
                f"{name.replace('_', ' ')} {_percent(row['success_any'])}"
                for name, row in table["baselines"].items()
            )
            lines.append(f"- {distance} steps away: {rates}")
    return lines


def _verdicts(results: Path) -> list[str]:
    lines = []
    for file in sorted(results.glob("seed*/check.json")):
        check = json.loads(file.read_text())
        lines.append(f"- `lewm-check`, training seed {file.parent.name.removeprefix('seed')}: "
                     f"**{check['verdict']}**; {check['reason']}")
    return lines


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: model_card_results.py RESULTS CARD")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
