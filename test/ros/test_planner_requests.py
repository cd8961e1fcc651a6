"""Whatever breaks while a goal is taken up is told to whoever asked, and the robot holds."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from rclpy.action import ActionClient  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402

from lewm_core.errors import PlanningError  # noqa: E402
from lewm_ros.action import ReachGoal  # noqa: E402
from lewm_ros.planner.mission import Ending, GoalRequest, Mission  # noqa: E402
from lewm_ros.planner.requests import PlannerRequests  # noqa: E402
from lewm_ros.srv import SetGoal  # noqa: E402


class BreakingHost:
    """A planner that fails in a way nobody thought of when it begins with a goal."""

    def __init__(self) -> None:
        self.mission = Mission()
        self.given_up: list[tuple[Ending, str]] = []

    def why_not(self) -> str:
        return ""

    def stopped(self) -> bool:
        return False

    def number_of_cameras(self) -> int:
        return 1

    def goal_picture(self, source) -> np.ndarray:
        if source == "missing.png":
            raise PlanningError("goal missing.png is not a file")
        return np.zeros((3, 8, 8), np.uint8)

    def captured_picture(self) -> np.ndarray:
        return np.zeros((3, 8, 8), np.uint8)

    def tolerance(self, asked: float) -> float:
        return asked

    def pursue(self, request: GoalRequest) -> None:
        self.mission.begin(request, 0)
        raise ZeroDivisionError("no such\nplan")

    def give_up(self, ending: Ending, message: str) -> None:
        self.given_up.append((ending, message))
        self.mission.end(ending, message)

    def stop(self, reason: str) -> None:
        raise AssertionError(reason)

    def resume(self) -> bool:
        return False


@pytest.fixture
def host(graph):
    node = LifecycleNode("planner", context=graph.node.context)
    host = BreakingHost()
    requests = PlannerRequests(node, host)
    graph.node.executor.add_node(node)
    yield host
    graph.node.executor.remove_node(node)
    requests.destroy()
    node.destroy_node()


def reach(graph, goal: ReachGoal.Goal) -> ReachGoal.Result:
    client = ActionClient(graph.node, ReachGoal, "/planner/reach_goal")
    graph.wait(client.server_is_ready, "the action server is not there")
    sent = client.send_goal_async(goal)
    graph.wait(sent.done, "the goal is not answered")
    ended = sent.result().get_result_async()
    graph.wait(ended.done, "the goal does not end")
    client.destroy()
    return ended.result().result


def test_a_goal_that_breaks_the_planner_fails_by_name_and_the_planner_holds(graph, host):
    broken = "ZeroDivisionError: no such plan"
    answer = graph.call(SetGoal, "/planner/set_goal", SetGoal.Request(path="a.png"))
    assert not answer.success and answer.message == broken
    assert host.given_up == [(Ending.FAILED, broken)]
    result = reach(graph, ReachGoal.Goal(paths=["a.png"]))
    assert (result.reason, result.message) == (ReachGoal.Result.FAILED, broken)
    assert host.given_up == [(Ending.FAILED, broken)] * 2
    # It is still there, and a goal that is refused disturbs nobody.
    result = reach(graph, ReachGoal.Goal(paths=["missing.png"]))
    assert result.reason == ReachGoal.Result.INVALID_GOAL and "missing.png" in result.message
    assert len(host.given_up) == 2
