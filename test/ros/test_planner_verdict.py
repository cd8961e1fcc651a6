"""What ``lewm-check`` found decides whether the planner becomes active: real node, real DDS."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402

from lewm_core.commands import check  # noqa: E402
from lewm_core.model.verdict import read_verdict  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402
from lewm_ros.processes import NodeProcess, isolated_environment  # noqa: E402
from test.evaluation.checkpoints import collect_episodes, train_without_sigreg  # noqa: E402
from test.helpers import wait_until  # noqa: E402
from test.ros.planner_driver import picture_of, running_planner  # noqa: E402

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE


@pytest.fixture(scope="module")
def bad_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained without SIGReg, and found out by ``lewm-check``."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEWM_CACHE_DIR", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        data = collect_episodes(folder / "data", seed=1)
        checkpoint = train_without_sigreg(data, folder / "run")
        fresh = collect_episodes(folder / "fresh", seed=2)
        assert check.main([str(checkpoint), "--data", str(fresh), "--goals", "8"]) == 0
    verdict = read_verdict(checkpoint)
    assert verdict is not None and verdict.verdict == "cannot plan"
    return checkpoint


def test_a_checkpoint_that_cannot_plan_is_not_activated_unless_forced(
    bad_checkpoint: Path, tmp_path: Path
) -> None:
    with running_planner(tmp_path, checkpoint=bad_checkpoint, autostart=False) as driver:
        driver.streaming = True
        assert driver.change_state(CONFIGURE)
        status = driver.wait_status(PlanStatus.INACTIVE, "configured, not active")
        assert status.verdict.startswith("cannot plan: ")

        assert not driver.change_state(ACTIVATE)
        assert driver.state() == "inactive"
        status = driver.wait_status(PlanStatus.INACTIVE, "activate refused")
        assert "force" in status.reason and bad_checkpoint.name in status.reason
        assert "activate refused: lewm-check says" in driver.process.output()
        reports = len(driver.statuses)
        wait_until(lambda: len(driver.statuses) >= reports + 3, 5.0, "reports do not come")
        assert driver.commands == []

        assert driver.set_parameter("force", True) == ""
        assert driver.change_state(ACTIVATE)
        status = driver.wait_status(PlanStatus.WAITING, "no goal")
        assert status.verdict.startswith("cannot plan: ")
        assert driver.set_goal(picture_of(0.2, 0.8), tolerance=1e-9).success
        assert len(driver.wait_commands(3)) == 3


def test_with_autostart_the_process_ends_with_the_reason(
    bad_checkpoint: Path, tmp_path: Path
) -> None:
    parameters = {"checkpoint": bad_checkpoint, "threads": 1, "autostart": True}
    log = tmp_path / "planner.log"
    with NodeProcess("planner", parameters, isolated_environment(), log) as process:
        assert process.wait(60.0) == 1, process.output()
        lines = [text for text in process.output().splitlines() if text.startswith("error: ")]
    assert len(lines) == 1 and "cannot plan" in lines[0] and "force" in lines[0]


def test_a_checkpoint_that_nobody_checked_runs_with_a_warning(tmp_path: Path) -> None:
    with running_planner(tmp_path) as driver:
        assert driver.wait_status(PlanStatus.WAITING).verdict == "not checked"
        assert "warning: nobody has checked whether" in driver.process.output()
