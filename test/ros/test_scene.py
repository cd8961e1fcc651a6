"""The scene node as a process of its own, over DDS."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from geometry_msgs.msg import TwistStamped  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

from lewm_core.scenes import make_scene  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import decode_message, ns_to_stamp, stamp_to_ns  # noqa: E402
from lewm_ros.msg import EpisodeEvent  # noqa: E402
from lewm_ros.srv import ResetScene  # noqa: E402

STATE = [0.1, 0.12, -0.05, -0.06, 0.7]
PERIOD_NS = 100_000_000


def command(stamp_ns: int, x: float, y: float = 0.0) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.twist.linear.x, message.twist.linear.y = x, y
    return message


def stamp_of(message) -> int:
    return stamp_to_ns(message.header.stamp)


def test_pictures_are_the_render_of_the_state_with_its_stamp(graph):
    graph.start("scene", {"seed": 3, "camera_rate": 20.0})
    pictures = graph.collect(Image, "/camera/image_raw", qos.CAMERA_SENSOR_DATA)
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    answer = graph.call(ResetScene, "/scene/reset", ResetScene.Request(seed=-1, state=STATE))
    assert answer.success and list(answer.state) == pytest.approx(STATE, abs=1e-12)
    del pictures[:], states[:]
    graph.wait(lambda: len(states) >= 5 and len(pictures) >= 10, "too few pictures and states")
    physics = make_scene("push_t")
    physics.reset(state=STATE)
    expected = physics.render(224, 224)
    physics.close()
    by_stamp = {stamp_of(picture): picture for picture in pictures}
    shared = [state for state in states if stamp_of(state) in by_stamp]
    assert len(shared) >= 4
    for state in shared:
        picture = by_stamp[stamp_of(state)]
        assert picture.header.frame_id == "top"
        assert list(state.position) == pytest.approx(STATE, abs=1e-12)
        np.testing.assert_array_equal(decode_message(picture), expected)
    intervals = np.diff(sorted(by_stamp)) / 1e9
    np.testing.assert_allclose(intervals, 0.05, atol=1e-9)
    assert states[0].name == ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]


def test_real_time_keeps_pace_with_the_wall_clock(graph):
    graph.start("scene", {"camera_rate": 1.0})
    ticks = []
    graph.node.create_subscription(
        Clock,
        "/clock",
        lambda m: ticks.append((graph.node.get_clock().now().nanoseconds, stamp_to_ns(m.clock))),
        qos.COMMAND,
    )
    graph.wait(lambda: len(ticks) >= 150, "the clock does not tick")
    (wall_a, scene_a), (wall_b, scene_b) = ticks[0], ticks[-1]
    # Another process may keep this one waiting for a moment, but not by a rate.
    assert (scene_b - scene_a) / 1e9 == pytest.approx((wall_b - wall_a) / 1e9, abs=0.3)
    assert np.diff([scene for _, scene in ticks]).max() == 10_000_000


def test_commands_move_the_pusher_and_silence_stops_it(graph):
    graph.start("scene", {"camera_rate": 1.0})
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    publisher = graph.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
    graph.call(ResetScene, "/scene/reset", ResetScene.Request(seed=-1, state=STATE))
    graph.wait(lambda: publisher.get_subscription_count() == 1, "the scene does not listen")
    del states[:]
    graph.wait(lambda: states, "no state")
    seen = 0
    while len(states) < 12:
        graph.wait(lambda seen=seen: len(states) > seen, "the scene stands still")
        seen = len(states)
        publisher.publish(command(stamp_of(states[-1]), -0.1))
    moved = states[-1].position[0] - STATE[0]
    assert moved < -0.03
    assert states[-1].position[1] == pytest.approx(STATE[1], abs=1e-3)
    # 0.3 s of the contract's timeout, then the pusher settles.
    last = stamp_of(states[-1])
    graph.wait(lambda: stamp_of(states[-1]) > last + 1_500_000_000, "the scene stands still")
    at_rest = [s.position[0] for s in states if stamp_of(s) > last + 900_000_000]
    assert np.ptp(at_rest) < 1e-4
    assert at_rest[0] - STATE[0] > moved - 0.1 * 0.75


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (command(10**18, 0.1), "in the future"),
        (command(0, float("nan")), "not finite"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(graph, bad, reason):
    scene = graph.start("scene", {"camera_rate": 1.0})
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    publisher = graph.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
    graph.wait(lambda: publisher.get_subscription_count() == 1, "the scene does not listen")
    publisher.publish(bad)
    graph.wait(lambda: reason in scene.output(), "the scene does not complain")
    del states[:]
    graph.wait(lambda: len(states) >= 3, "the scene stands still")
    assert np.ptp([state.position[0] for state in states]) < 1e-6


def drive_in_lock_step(graph, commands) -> list[list[float]]:
    """Answer each state by the next command; return all states of the episode."""
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    publisher = graph.node.create_publisher(TwistStamped, "/command", qos.COMMAND)
    graph.wait(lambda: publisher.get_subscription_count() == 1, "the scene does not listen")
    events = graph.collect(EpisodeEvent, "/episode", qos.EPISODE)
    answer = graph.call(ResetScene, "/scene/reset", ResetScene.Request(seed=11, episode="twice"))
    assert answer.success
    graph.wait(lambda: any(e.episode == "twice" for e in events), "no event")
    began = next(stamp_of(e) for e in events if e.episode == "twice")
    for index, values in enumerate(commands):
        tick = began + index * PERIOD_NS
        graph.wait(lambda tick=tick: states and stamp_of(states[-1]) >= tick, "no state")
        publisher.publish(command(tick, *values))
    last = began + len(commands) * PERIOD_NS
    graph.wait(lambda: stamp_of(states[-1]) >= last, "no last state")
    return [list(s.position) for s in states if began <= stamp_of(s) <= last]


def test_lock_step_gives_the_same_states_to_the_bit_and_those_of_the_physics(graph):
    commands = [(0.1 * np.sin(i), 0.12 * np.cos(0.7 * i)) for i in range(40)]
    timing = {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 30.0}
    scene = graph.start("scene", {"seed": 1, **timing})
    first = drive_in_lock_step(graph, commands)
    graph.stop(scene)
    graph.start("scene", {"seed": 2, "camera_rate": 2.0, **timing})
    second = drive_in_lock_step(graph, commands)
    assert len(first) == 41
    assert first == second
    physics = make_scene("push_t")
    expected = [physics.reset(seed=11)]
    expected += [physics.step_control(np.array(values)) for values in commands]
    np.testing.assert_array_equal(np.array(first), np.array(expected))


def test_lock_step_holds_and_goes_on_when_nobody_commands(graph):
    graph.start("scene", {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 0.05})
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    graph.wait(lambda: len(states) >= 5, "time stands still")
    assert np.ptp([state.position[0] for state in states]) < 1e-9


def test_a_reset_ends_an_episode_and_leaves_a_gap_in_time(graph):
    graph.start("scene", {"seed": 5})
    events = graph.collect(EpisodeEvent, "/episode", qos.EPISODE)
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    graph.wait(lambda: events and states, "a late joiner does not learn of the episode")
    assert (events[0].event, events[0].episode, events[0].seed) == (
        EpisodeEvent.START, "scene_000000", 5)  # fmt: skip
    answers = [
        graph.call(ResetScene, "/scene/reset", ResetScene.Request(seed=9, episode=name))
        for name in ("a", "b")
    ]
    assert [answer.episode for answer in answers] == ["a", "b"]
    assert list(answers[0].state) == list(answers[1].state)
    graph.wait(lambda: len(events) >= 5, "events are missing")
    kinds = [(event.event, event.episode) for event in events]
    start, end = EpisodeEvent.START, EpisodeEvent.END
    assert kinds == [(start, "scene_000000"), (end, "scene_000000"),
                     (start, "a"), (end, "a"), (start, "b")]  # fmt: skip
    stamps = [stamp_of(event) for event in events]
    # Longer than the contract's max_gap of 1 s.
    assert stamps[2] - stamps[1] > 1_000_000_000
    graph.wait(lambda: stamp_of(states[-1]) > stamps[4], "the scene stands still")
    assert np.all(np.diff([stamp_of(state) for state in states]) > 0)


def test_a_state_that_cannot_be_is_refused_and_the_scene_goes_on(graph):
    graph.start("scene", {"seed": 5})
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    for state, word in (([0.1, 0.2], "5 finite"), ([9.0, 0.0, 0.0, 0.0, 0.0], "board")):
        request = ResetScene.Request(seed=-1, state=state)
        answer = graph.call(ResetScene, "/scene/reset", request)
        assert not answer.success and word in answer.message
    count = len(states)
    graph.wait(lambda: len(states) > count + 2, "the scene stands still")


def test_a_reset_waits_for_those_who_must_hear_the_episode_from_its_first_message_on(graph):
    graph.start("scene", {"camera_rate": 2.0, "lock_step": True})
    request = ResetScene.Request(seed=1, episode="heard", listeners=["absent"])
    answer = graph.call(ResetScene, "/scene/reset", request)
    assert not answer.success and "absent does not subscribe /camera/image_raw" in answer.message
    states = graph.collect(JointState, "/scene/state", qos.STATE)
    graph.collect(Image, "/camera/image_raw", qos.CAMERA_NEWEST)
    request.listeners = ["test"]
    answer = graph.call(ResetScene, "/scene/reset", request)
    assert answer.success, answer.message
    first = list(answer.state)
    graph.wait(lambda: [s for s in states if list(s.position) == first], "the first is lost")



@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"scene": "push_q"}, ["push_q", "push_t"]),
        ({"contract": "no/such.yaml"}, ["no/such.yaml"]),
        ({"camera_rat": 3.0}, ["camera_rat", "camera_rate"]),
        ({"publish_clock": False, "lock_step": True}, ["publish_clock"]),
    ],
)
def test_what_cannot_work_is_one_line_and_status_1(graph, parameters, words):
    line = graph.refuse("scene", parameters)
    assert all(word in line for word in words), line


def test_without_a_clock_the_stamps_are_the_systems_time(graph):
    graph.start("scene", {"publish_clock": False, "camera_rate": 5.0})
    received = []
    graph.node.create_subscription(
        Image,
        "/camera/image_raw",
        lambda m: received.append((graph.node.get_clock().now().nanoseconds, stamp_of(m))),
        qos.CAMERA_SENSOR_DATA,
    )
    graph.wait(lambda: len(received) >= 6, "too few pictures")
    assert not graph.node.get_publishers_info_by_topic("/clock")
    ages = [(now - stamp) / 1e9 for now, stamp in received]
    assert min(ages) > -0.05 and max(ages) < 1.0
    assert np.median(np.diff([stamp for _, stamp in received])) == pytest.approx(2e8, rel=0.1)
