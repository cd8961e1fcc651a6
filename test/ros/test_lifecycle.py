"""Scene, recorder and expert as lifecycle nodes; the planner's is test_planner_lifecycle.py."""

import json
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

import rclpy  # noqa: E402
from lifecycle_msgs.msg import Transition, TransitionEvent  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from lewm_core.data.bags import find_bags  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.lifecycle import ManagedNode, autostart  # noqa: E402
from lewm_ros.msg import EpisodeEvent  # noqa: E402
from lewm_ros.srv import ResetScene  # noqa: E402
from test.ros.test_recorder import Robot, start, stop  # noqa: E402

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
CLEANUP = Transition.TRANSITION_CLEANUP


def assert_still(count, seconds: float = 0.5) -> None:
    """What is counted does not grow; what was on its way has time to come."""
    time.sleep(0.2)
    before = count()
    time.sleep(seconds)
    assert count() == before


class Managed:
    """Asks a node what ``ros2 lifecycle`` and ``ros2 param`` ask."""

    def __init__(self, graph, name: str) -> None:
        self.graph, self.name = graph, name

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.graph.call(ChangeState, f"/{self.name}/change_state", request).success

    def state(self) -> str:
        answer = self.graph.call(GetState, f"/{self.name}/get_state", GetState.Request())
        return answer.current_state.label

    def transitions(self) -> set[str]:
        answer = self.graph.call(
            GetAvailableTransitions, f"/{self.name}/get_available_transitions",
            GetAvailableTransitions.Request(),
        )  # fmt: skip
        return {entry.transition.label for entry in answer.available_transitions}

    def set(self, name: str, value) -> str:
        """Set a parameter; return why it was refused, empty if it was not."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        result = self.graph.call(SetParameters, f"/{self.name}/set_parameters", request).results[0]
        return "" if result.successful else result.reason


def test_a_scene_is_silent_unless_active_and_goes_on_with_a_new_episode(graph):
    process = graph.start(
        "scene", {"autostart": False, "camera_rate": 20.0, "scene": "nowhere"}, ready=""
    )
    scene = Managed(graph, "scene")
    told = graph.collect(TransitionEvent, "/scene/transition_event", 10)
    events = graph.collect(EpisodeEvent, "/episode", qos.EPISODE)
    pictures = graph.collect(Image, "/camera/image_raw", qos.CAMERA_NEWEST)
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    clocks = graph.collect(Clock, "/clock", 10)
    assert scene.state() == "unconfigured" and scene.transitions() == {"configure", "shutdown"}
    assert not scene.change(CONFIGURE) and scene.state() == "unconfigured"
    assert "configure failed: there is no contract 'nowhere'" in process.output()
    assert scene.set("scene", "push_t") == ""
    assert scene.change(CONFIGURE) and scene.state() == "inactive"
    request = ResetScene.Request(seed=3)
    answer = graph.call(ResetScene, "/scene/reset", request)
    assert not answer.success and "not active" in answer.message
    assert_still(lambda: len(pictures) + len(states) + len(clocks) + len(events))
    assert not pictures and not states and not clocks and not events
    for episode in (1, 2):
        assert scene.change(ACTIVATE)
        before = len(pictures)
        graph.wait(lambda before=before: len(pictures) > before + 5, "no pictures")
        assert scene.change(DEACTIVATE) and scene.state() == "inactive"
        graph.wait(lambda episode=episode: len(events) == 2 * episode, "no end of the episode")
        assert_still(lambda: len(pictures) + len(states) + len(clocks))
    assert [event.event for event in events] == [EpisodeEvent.START, EpisodeEvent.END] * 2
    assert events[0].episode == events[1].episode != events[2].episode == events[3].episode
    stamps = [state.header.stamp.sec * 10**9 + state.header.stamp.nanosec for state in states]
    assert stamps == sorted(set(stamps)), "time went back"
    assert scene.change(CLEANUP) and scene.state() == "unconfigured"
    graph.wait(
        lambda: not graph.node.get_publishers_info_by_topic("/camera/image_raw"),
        "the topics are not freed",
    )
    goals = [event.goal_state.label for event in told]
    assert goals.count("active") == 2 and goals[-1] == "unconfigured"


def test_a_scenes_parameters_change_where_that_is_safe(graph):
    graph.start("scene", {"camera_rate": 5.0, "clock_every_step": False})
    scene = Managed(graph, "scene")
    pictures = graph.collect(Image, "/camera/image_raw", qos.CAMERA_NEWEST)
    states = graph.collect(JointState, "/scene/state", qos.STATE)

    def pictures_per_state() -> float:
        graph.wait(lambda: pictures, "no pictures")
        seen = len(pictures), len(states)
        graph.wait(lambda: len(states) >= seen[1] + 20, "no states")
        return (len(pictures) - seen[0]) / (len(states) - seen[1])

    assert pictures_per_state() == pytest.approx(0.5, abs=0.15)
    assert scene.set("camera_rate", 10.0) == ""
    assert pictures_per_state() == pytest.approx(1.0, abs=0.15)
    assert scene.set("real_time_factor", 2.0) == ""
    assert "'image_width' cannot change while the scene is configured" in scene.set(
        "image_width", 100
    )
    assert "real_time_factor" in scene.set("real_time_factor", -1.0)
    assert scene.change(DEACTIVATE) and scene.change(CLEANUP)
    assert "'encoding' is 'rbg8'" in scene.set("encoding", "rbg8")
    assert scene.set("publish_clock", False) == ""
    assert not scene.change(CONFIGURE), "two times in one scene"


def test_a_recorder_records_while_it_is_active_only(graph):
    out = graph.folder / "data"
    robot = Robot(graph)
    process = graph.start("record_dataset", {"autostart": False}, ready="")
    recorder = Managed(graph, "record_dataset")
    assert not recorder.change(CONFIGURE)
    assert "configure failed: parameter out is empty" in process.output()
    assert recorder.set("out", str(out)) == ""
    assert recorder.change(CONFIGURE)
    robot.wait_for_recorder()
    answer = graph.call(Trigger, "/record_dataset/start_episode", Trigger.Request())
    assert not answer.success and "not active" in answer.message
    robot.publish(10**9)
    assert recorder.change(ACTIVATE)
    first = start(graph)
    robot.publish(2 * 10**9)
    robot.publish(3 * 10**9)
    stop(graph)
    second = start(graph)
    robot.publish(4 * 10**9)
    assert recorder.set("minimum_free_gib", 0.5) == ""
    assert "episode_prefix" in recorder.set("episode_prefix", "../x")
    assert "'out' cannot change while the recorder is configured" in recorder.set("out", "x")
    # What is on is finished, not lost.
    graph.wait(lambda: _recorded(out / second) > 0, "nothing is recorded")
    assert recorder.change(DEACTIVATE)
    assert {bag.name for bag in find_bags([out])} == {first, second}
    report = json.loads((out / first / "recorder.json").read_text())
    assert report["topics"]["/command"]["written"] == 2
    assert recorder.change(CLEANUP)
    services = dict(graph.node.get_service_names_and_types())
    graph.wait(
        lambda: "/record_dataset/start_episode" not in dict(
            graph.node.get_service_names_and_types()
        ),
        f"the services are not freed: {services}",
    )  # fmt: skip
    assert recorder.change(CONFIGURE) and recorder.change(ACTIVATE)


def _recorded(folder) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.mcap"))


def test_an_expert_that_is_deactivated_ends_its_episode_and_drives_it_anew(graph):
    out = graph.folder / "data"
    graph.start("record_dataset", {"out": out, "use_sim_time": True})
    graph.start("scene", {"camera_rate": 2.0, "real_time_factor": 4.0})
    events = graph.collect(EpisodeEvent, "/episode", qos.EPISODE)
    process = graph.start(
        "expert", {"episodes": 2, "steps": 80, "seed": 7, "recorder": "record_dataset"}
    )
    expert = Managed(graph, "expert")

    def ended() -> list[str]:
        ends = [event for event in events if event.event == EpisodeEvent.END]
        return [event.episode for event in ends]

    graph.wait(
        lambda: "expert_000007" in {event.episode for event in events}, "no episode begins"
    )
    assert expert.change(DEACTIVATE) and expert.state() == "inactive"
    graph.wait(lambda: "expert_000007" in ended(), "the episode is not ended")
    graph.wait((out / "episode_000000" / "recorder.json").exists, "the recorder is not asked")
    assert expert.change(ACTIVATE)
    graph.wait_for_end(process)
    assert "2 episodes of 80 steps" in process.output()
    graph.wait((out / "episode_000002" / "recorder.json").exists, "an episode is missing")
    commands = [
        json.loads((out / f"episode_{i:06d}" / "recorder.json").read_text())["topics"]["/command"]
        for i in range(3)
    ]
    assert commands[0]["written"] < 80
    assert commands[1]["written"] == commands[2]["written"] == 80


class Fragile(ManagedNode):
    """Breaks where it is told to."""

    label = "the fragile node"
    declarations = (autostart(False),)

    def __init__(self, context, breaks: str) -> None:
        self.calls: list[str] = []
        self.breaks = breaks
        super().__init__("fragile", context=context)

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what == self.breaks:
            raise RuntimeError(f"{what} is broken")

    def configure(self) -> None:
        self.free_later(self._do, "free the first")
        self.free_later(self._do, "free the second")
        self._do("configure")

    def activate(self) -> None:
        self._do("activate")

    def deactivate(self, reason: str) -> None:
        self._do("deactivate")

    def tell(self, reason: str) -> None:
        self.told = reason


@pytest.mark.parametrize("breaks", ["configure", "activate", "deactivate", "free the second"])
def test_a_transition_that_breaks_takes_everything_down_again(monkeypatch, breaks):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=100)
    node = Fragile(context, breaks)
    try:
        for trigger in (
            node.trigger_configure, node.trigger_activate, node.trigger_deactivate,
            node.trigger_cleanup,
        ):  # fmt: skip
            if trigger() != TransitionCallbackReturn.SUCCESS:
                break
        else:
            pytest.fail("nothing failed")
        assert node._state_machine.current_state[1] == "unconfigured"
        # In the reverse order, whatever broke, each once.
        freed = [call for call in node.calls if call.startswith("free")]
        assert freed == ["free the second", "free the first"]
        assert node.calls.count("deactivate") == (breaks != "configure")
        assert "failed" in node.told and not node._active and not node._configured
        node.breaks = ""
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    finally:
        node.destroy_node()
        context.try_shutdown()
