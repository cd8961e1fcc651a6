"""Rows on disk survive kills, and a resumed run writes no step twice."""

from __future__ import annotations

import json
import math

from PIL import Image

from lewm_core.training.metrics import FILE, MetricsLog, draw_curves, read_metrics


def write_run(folder, steps=5):
    log = MetricsLog(folder)
    for step in range(1, steps + 1):
        log.write("train", step, {"total": 1.0 / step, "prediction": 0.5, "sigreg": 1.0})
    log.write(
        "evaluation",
        steps,
        {
            "effective_rank": 4.0,
            "std_mean": 0.9,
            "prediction_error_1": 0.1,
            "nothing_changes_1": 0.4,
            "probe_r2_block": 0.8,
            "region_r2_upper_left": math.nan,
        },
    )
    log.close()


def test_rows_are_json_and_what_is_not_finite_is_null(tmp_path):
    write_run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["train"] * 5 + ["evaluation"]
    assert rows[-1]["region_r2_upper_left"] is None
    assert rows[1]["total"] == 0.5
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_resumed_run_drops_rows_after_its_state_and_a_torn_line(tmp_path):
    write_run(tmp_path)
    with open(tmp_path / FILE, "a") as file:
        file.write('{"kind": "train", "st')
    log = MetricsLog(tmp_path, step=3)
    log.write("train", 4, {"total": 9.0})
    log.close()
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["total"]) for row in rows] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1.0 / 3),
        (4, 9.0),
    ]


def test_curves_are_drawn_also_without_measurements(tmp_path):
    for name, steps in (("full", 5), ("empty", 0)):
        folder = tmp_path / name
        folder.mkdir()
        if steps:
            write_run(folder, steps)
        picture = Image.open(draw_curves(folder))
        assert picture.width > 800
        darkest, brightest = picture.convert("L").getextrema()
        assert darkest < 100 < 250 < brightest
