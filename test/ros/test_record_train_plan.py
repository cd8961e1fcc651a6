"""Every scene's whole loop over DDS in small: record the expert, train on those bags, check, plan.

What is small is the amount only: nodes, bags, training and planning are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lewm_core
from lewm_core.commands import check, eval
from lewm_core.data import load_contract
from lewm_core.model.verdict import read_verdict
from test.scenes.every_scene import SCENES

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("lewm_ros.msg", reason="the interfaces are not built")

ROOT = Path(__file__).parents[2]
EPISODES, STEPS, GOALS = 12, 60, 2
TIMEOUT_S = 280.0


#: A contract of another name than the scene's, and what a model is given under it.
TWO_CAMERAS = "cube_two_cameras"
INPUTS = {TWO_CAMERAS: ["model.inputs.cameras=[workspace, wrist]", "model.inputs.state=true"]}
CUBE = next(parameter for parameter in SCENES if parameter.values == ("cube",))
CONTRACTS = [
    # One cube with one camera is the last one with less, and two cubes are the same nodes, contract
    # and messages with four numbers more: not worth the minute that each takes.
    *(scene for scene in SCENES if scene.values not in (("cube",), ("cube_double",))),
    pytest.param(TWO_CAMERAS, marks=CUBE.marks),
]


@pytest.fixture(scope="module", params=CONTRACTS)
def contract(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def scene(contract: str) -> str:
    return load_contract(contract).name


@pytest.fixture(scope="module")
def loop(
    contract: str, scene: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run the script once for a contract; returns its output folder and what it printed."""
    out = tmp_path_factory.mktemp(contract) / "out"
    environment = dict(
        os.environ,
        LEWM_PYTHON=sys.executable,
        SCENE=scene,
        CONTRACT=contract,
        EPISODES=str(EPISODES),
        STEPS=str(STEPS),
        GOALS=str(GOALS),
        LEWM_CACHE_DIR=str(out.parent / "cache"),
    )
    environment.pop("ROS_DOMAIN_ID", None)
    command = [
        ROOT / "scripts/record_train_plan.sh", out, "steps=40", "batch_size=16", "threads=1",
        "optimiser.warmup_steps=4", "checkpoint_every=20", "evaluate_every=40",
        "held_out_fraction=0.5",
        "refinement.steps=10", "refinement.warmup_steps=2",
        "proposal.steps=10", "proposal.warmup_steps=2", "proposal.batch_size=64",
        *INPUTS.get(contract, []),
    ]
    # A session of its own, so that a time-out ends the nodes as well.
    script = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )
    try:
        printed, _ = script.communicate(timeout=TIMEOUT_S)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
            script.wait()
    logs = "".join(f"\n-- {log}\n{log.read_text()}" for log in sorted(out.glob("**/*.log")))
    assert script.returncode == 0, printed + logs
    return out, printed


def test_every_episode_was_recorded_without_a_lost_message(loop: tuple[Path, str]) -> None:
    reports = sorted((loop[0] / "bags").glob("*/recorder.json"))
    assert len(reports) == EPISODES
    contract = load_contract(loop[0] / "bags")
    for report in reports:
        topics = json.loads(report.read_text())["topics"]
        for topic in contract.topics():
            assert topics[topic]["dropped"] == topics[topic]["lost"] == 0, (report, topic)
            assert topics[topic]["written"] >= STEPS, (report, topic, topics[topic])


def test_the_checkpoint_was_trained_on_these_bags(contract: str, loop: tuple[Path, str]) -> None:
    model = lewm_core.load(loop[0] / "train/checkpoint")
    recorded = {path.parent.name for path in (loop[0] / "bags").glob("*/recorder.json")}
    # A bag with a gap in it holds NAME and NAME+1.
    trained, held_out = (
        {name.split("+")[0] for name in model.metadata[key]}
        for key in ("trained_episodes", "held_out_episodes")
    )
    assert trained and held_out
    assert trained | held_out == recorded and not trained & held_out
    assert model.contract == load_contract(contract).to_dict()
    inputs = model.config.inputs
    if contract == TWO_CAMERAS:
        assert inputs.cameras == ("workspace", "wrist")
        assert inputs.state_names == tuple(load_contract(contract).proprioceptive_names) != ()
    else:
        assert (inputs.cameras, inputs.state_names) == ((), ())


def test_the_planner_drove_with_that_checkpoint(loop: tuple[Path, str]) -> None:
    result = json.loads((loop[0] / "demo/demo.json").read_text())
    assert result["episodes"] == GOALS
    assert result["plans"] >= GOALS
    assert result["commands"] > result["commands_held"]
    assert (loop[0] / "demo/demo.mp4").stat().st_size > 1000
    assert "report.html" in loop[1]


def test_check_and_evaluation_take_that_checkpoint(
    scene: str, loop: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = loop[0]
    monkeypatch.setenv("LEWM_CACHE_DIR", str(out.parent / "cache"))
    checkpoint = str(out / "train/checkpoint")
    assert check.main([checkpoint, "--data", str(out / "bags"), "--goals", "4"]) == 0
    verdict = read_verdict(Path(checkpoint))
    # After forty steps of training, with any luck.
    assert verdict is not None and verdict.verdict != "can plan"
    result = out / "eval.json"
    arguments = [checkpoint, "--scene", scene, "--episodes", str(GOALS), "--no-video"]
    arguments += ["--out", str(out / "eval"), "--timed-plans", "2", "--json", str(result)]
    assert eval.main(arguments) == 0
    report = json.loads(result.read_text())
    assert (report["scene"], report["episodes"], report["plans_failed"]) == (scene, GOALS, 0)
    # At any time: an arm in motion goes on after the last recorded command.
    assert report["baselines"]["replay"]["success_any"] == 1.0
    assert (out / "eval/summary.png").stat().st_size > 1000
