"""What the doctor makes of what it saw: one finding per fault, without processes."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from lewm_core.data import load_contract  # noqa: E402
from lewm_core.errors import UserError  # noqa: E402
from lewm_ros import qos  # noqa: E402
from lewm_ros.codecs import encode_compressed, encode_image  # noqa: E402
from lewm_ros.doctor.cameras import bytes_per_second, judge_camera  # noqa: E402
from lewm_ros.doctor.clocks import judge_clock, judge_synchronised  # noqa: E402
from lewm_ros.doctor.endpoints import judge_publishers, judge_subscribers  # noqa: E402
from lewm_ros.doctor.machine import judge_disk, judge_processors  # noqa: E402
from lewm_ros.doctor.middleware import (  # noqa: E402
    judge_identity,
    judge_profile,
    judge_receive_buffer,
    judge_shared_memory,
)
from lewm_ros.doctor.model import open_subject  # noqa: E402
from lewm_ros.doctor.planner import judge_status  # noqa: E402
from lewm_ros.doctor.report import Report, fail, ok  # noqa: E402
from lewm_ros.doctor.stamps import Demands  # noqa: E402
from lewm_ros.doctor.streams import Arrival, Stream, look_at  # noqa: E402
from lewm_ros.endpoints import others_than  # noqa: E402
from lewm_ros.msg import PlanStatus  # noqa: E402

CAMERA = load_contract("push_t").camera
DEMANDS = Demands(10.0, 2.0, 0.5, "header", simulated=False)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 224, 224, 3), np.uint8)
START_NS = 10**18


def stream(messages, period_s=0.1, age_s=0.01, stamps=None) -> Stream:
    """Messages as they come from a camera, one every ``period_s``."""
    made = Stream()
    for index, message in enumerate(messages):
        ros_ns = START_NS + round(index * period_s * 1e9)
        stamp_ns = ros_ns - round(age_s * 1e9) if stamps is None else stamps[index]
        made.arrivals.append(Arrival(index * period_s, ros_ns, stamp_ns, look_at(message)))
    return made


def noise(number=20):
    return [encode_image(picture) for picture in NOISE[:number]]


def judged(made: Stream, demands: Demands = DEMANDS) -> dict:
    return {finding.check: finding for finding in judge_camera(CAMERA, made, 2.0, demands)}


def test_a_camera_as_it_should_be():
    findings = judged(stream(noise()))
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert findings["camera top: rate"].measured["rate_hz"] == pytest.approx(10.0)
    assert findings["camera top: stamps"].measured["age_p50_s"] == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize(
    ("period_s", "level", "words"),
    [(0.2, "warning", "5.0 Hz"), (1.0, "FAIL", "at least 2 Hz are needed"), (0.05, "ok", "20.0")],
)
def test_rates(period_s, level, words):
    finding = judged(stream(noise(), period_s))["camera top: rate"]
    assert finding.level == level and words in finding.line()


def test_a_gap_longer_than_the_timeout_is_told():
    made = stream(noise())
    moved = [
        Arrival(a.at_s + 0.6, a.ros_ns + 6 * 10**8, a.stamp_ns + 6 * 10**8, a.picture)
        for a in made.arrivals[10:]
    ]
    made.arrivals[10:] = moved
    made.lost = 6
    findings = judged(made, Demands(8.0, 2.0, 0.5, "header", simulated=False))
    assert findings["camera top: rate"].level == "warning"
    assert "longest gap 0.70 s" in findings["camera top: rate"].found
    assert "lost 6 messages" in findings["camera top: lost"].found


@pytest.mark.parametrize(
    ("age_s", "level", "words"),
    [
        (2.0, "FAIL", "2.000 s old on arrival"),
        (-2.0, "FAIL", "2.000 s in the future"),
        (0.3, "warning", "0.300 s old"),
        (-0.1, "warning", "0.100 s in the future"),
        (1.7e9, "FAIL", "use_sim_time"),
    ],
)
def test_stamps_of_another_moment(age_s, level, words):
    finding = judged(stream(noise(5), age_s=age_s))["camera top: stamps"]
    assert finding.level == level and words in finding.line()


def test_stamps_that_are_missing_repeat_or_go_back():
    zero = judged(stream(noise(5), stamps=[0] * 5))["camera top: stamps"]
    assert zero.level == "FAIL" and "clock: receive" in zero.mend
    now = [START_NS + index * 10**8 for index in range(20)]
    once = judged(stream(noise(), stamps=[now[1], now[0], *now[2:]]))["camera top: order"]
    assert once.level == "warning" and once.measured["back"] == 1
    doubled = judged(stream(noise(), stamps=[now[index // 2] for index in range(20)]))
    assert doubled["camera top: order"].level == "FAIL"
    assert "10 repeat" in doubled["camera top: order"].found
    receive = judged(stream(noise(5), stamps=[0] * 5), Demands(10, 2, 0.5, "receive", False))
    assert receive["camera top: stamps"].level == "ok"
    assert receive["camera top: rate"].measured["rate_hz"] == pytest.approx(10.0)


def test_black_plain_and_frozen_pictures():
    black = judged(stream([encode_image(picture // 30) for picture in NOISE]))
    assert black["camera top: content"].level == "FAIL"
    assert "black (brightest 8 of 255)" in black["camera top: content"].found
    plain = judged(stream([encode_image(np.full((224, 224, 3), 99, np.uint8))] * 2))
    assert plain["camera top: content"].level == "warning"
    frozen = judged(stream(noise(1) * 5))["camera top: content"]
    assert frozen.level == "FAIL" and "same bytes" in frozen.found
    at_rest = judged(stream(noise(1) * 5), Demands(10.0, 2.0, 0.5, "header", simulated=True))
    assert at_rest["camera top: content"].level == "ok"


def test_broken_compressed_frames():
    frames = [encode_compressed(picture) for picture in NOISE]
    assert judged(stream(frames))["camera top: encoding"].found == "jpeg"
    frames[3].data = frames[3].data[:100]
    one = judged(stream(frames))["camera top: encoding"]
    assert one.level == "warning" and "1 of 20 pictures" in one.found
    for frame in frames[:10]:
        frame.data = frame.data[:100]
    many = judged(stream(frames))["camera top: encoding"]
    assert many.level == "FAIL" and "10 of 20 pictures" in many.found


def test_another_size_and_an_unknown_encoding():
    small = judged(stream([encode_image(picture[:120, :160].copy()) for picture in NOISE]))
    assert "160x120 px, the contract says 224x224" in small["camera top: size"].found
    strange = noise(5)
    for message in strange:
        message.encoding = "yuv9"
    unknown = judged(stream(strange))["camera top: encoding"]
    assert unknown.level == "FAIL" and "yuv9" in unknown.found


def test_a_second_node_of_the_same_name_is_another_one():
    own, twin, teleop = (endpoint(name, "t") for name in ("planner", "planner", "teleop"))
    assert others_than([own], "/planner") == []
    assert len(others_than([own, twin], "/planner")) == 1
    assert others_than([teleop, own], "/planner") == [teleop]
    assert others_than([teleop], "/planner") == [teleop], "its own is not discovered yet"


def endpoint(name, topic_type, profile=qos.COMMAND, gid=(1, 15, 7, 7)):
    """An endpoint as the graph reports it."""
    return SimpleNamespace(
        node_name=name, node_namespace="/", topic_type=topic_type, qos_profile=profile,
        endpoint_gid=[*gid, *range(12)],
    )  # fmt: skip


def test_a_recorder_is_no_robot():
    twist = "geometry_msgs/msg/TwistStamped"
    only = judge_subscribers("/command", twist, qos.COMMAND, [endpoint("record_dataset", twist)])
    assert [finding.level for finding in only] == ["FAIL"]
    assert "only recorders listen: /record_dataset" in only[0].found
    both = judge_subscribers(
        "/command", twist, qos.COMMAND,
        [endpoint("rosbag2_recorder", twist), endpoint("base", twist)],
    )  # fmt: skip
    assert {finding.level for finding in both} == {"ok"}


def test_two_cameras_on_one_topic_and_another_type():
    image = "sensor_msgs/msg/Image"
    two = [endpoint("left", image), endpoint("right", image)]
    findings = judge_publishers("camera top", "/image", image, qos.CAMERA_NEWEST, two, [])
    assert "/left, /right" in findings[0].found and findings[0].level == "warning"
    packed = [endpoint("left", "sensor_msgs/msg/CompressedImage")]
    findings = judge_publishers("camera top", "/image", image, qos.CAMERA_NEWEST, packed, [])
    assert [finding.level for finding in findings] == ["FAIL"]
    assert "CompressedImage, the contract says sensor_msgs/msg/Image" in findings[0].found


def test_clocks():
    publisher = [endpoint("simulator", "rosgraph_msgs/msg/Clock")]
    assert judge_clock(False, [], [], 1.0)[0].level == "ok"
    both = judge_clock(False, publisher, [], 1.0)[0]
    assert both.level == "warning" and "/simulator publishes /clock" in both.found
    assert judge_clock(True, [], [], 1.0)[0].level == "FAIL"
    half = [Arrival(index * 0.1, 0, index * 50_000_000) for index in range(10)]
    found = judge_clock(True, publisher, half, 1.0)
    assert found[-1].measured["real_time_factor"] == pytest.approx(0.5)
    # What the kernel says here is nobody's fault, but it is never a failure.
    assert judge_synchronised()[0].level in ("ok", "warning")


def test_what_the_planner_says():
    def level(state, reason=""):
        return judge_status("/planner", "active", PlanStatus(state=state, reason=reason)).level

    assert level(PlanStatus.PLANNING) == level(PlanStatus.WAITING, "no goal: just started") == "ok"
    assert level(PlanStatus.WAITING, "nobody listens on /command") == "warning"
    assert level(PlanStatus.STOPPED, "~/stop was called") == "warning"
    assert level(PlanStatus.FAILED, "planning failed") == "FAIL"
    assert level(PlanStatus.INACTIVE, "configure failed: no such checkpoint") == "FAIL"


def test_dds_settings(tmp_path):
    rmw = "rmw_fastrtps_cpp"
    assert judge_identity(rmw, {})[0].found == f"{rmw}, ROS_DOMAIN_ID 0, discovery SUBNET"
    assert judge_identity(rmw, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"})[0].level == "FAIL"
    assert judge_identity(rmw, {"ROS_LOCALHOST_ONLY": "1"})[0].level == "warning"
    assert judge_profile(rmw, {}, 921_600)[0].level == "warning"
    mine = {"FASTRTPS_DEFAULT_PROFILES_FILE": "/etc/mine.xml"}
    assert "/etc/mine.xml (your own)" in judge_profile(rmw, mine, 921_600)[0].found
    assert judge_profile("rmw_cyclonedds_cpp", {}, 921_600)[0].level == "ok"


def test_a_small_receive_buffer_matters_for_cameras_of_another_machine(tmp_path):
    limit = tmp_path / "rmem_max"
    limit.write_text("212992\n")
    here = [endpoint("camera", "sensor_msgs/msg/Image")]
    away = [endpoint("camera", "sensor_msgs/msg/Image", gid=(1, 15, 9, 9))]
    own = here[0].endpoint_gid
    assert judge_receive_buffer(here, own, 921_600, limit)[0].level == "ok"
    found = judge_receive_buffer(away, own, 921_600, limit)[0]
    assert found.level == "warning" and "208 KiB" in found.found and "/camera" in found.found
    assert "net.core.rmem_max=8388608" in found.mend
    assert judge_receive_buffer(away, own, 30_000, limit)[0].level == "ok"


def test_what_killed_processes_left_is_told(tmp_path):
    (tmp_path / "fastrtps_1a").write_bytes(b"x")
    lock = tmp_path / "fastrtps_1a_el"
    lock.write_bytes(b"")
    os.utime(lock, (0, 0))
    findings = judge_shared_memory("rmw_fastrtps_cpp", tmp_path)
    assert findings[-1].level == "warning" and findings[-1].measured["abandoned"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_disk(tmp_path):
    rate = bytes_per_second([stream(noise())], 2.0)
    assert rate == pytest.approx(10 * 224 * 224 * 3)
    found = judge_disk(str(tmp_path / "not" / "there"), 0.0, rate)[0]
    free = found.measured["free_gib"] * 2**30
    assert found.measured["hours"] == pytest.approx(free / rate / 3600.0)
    full = judge_disk(str(tmp_path), 1e6, rate)[0]
    assert full.level == "FAIL" and "minimum_free_gib" in full.found
    assert judge_disk("", 1e6, rate)[0].level == "warning"
    assert len(judge_processors()) == 2


def test_contracts_and_checkpoints(tmp_path):
    agreed = open_subject("push_t", "push_t-nano")
    assert {finding.level for finding in agreed.findings} == {"ok"}
    assert agreed.least_rate == pytest.approx(2.0)
    other = open_subject("two_room", "push_t-nano")
    differing = [finding for finding in other.findings if finding.level == "FAIL"]
    assert len(differing) == 1 and "checkpoint != two_room" in differing[0].found
    missing = open_subject("", str(tmp_path / "none"))
    assert missing.findings[0].level == "FAIL" and missing.contract is not None
    assert open_subject("nothing_of_that_name", "").contract is None


def test_the_report_is_json_and_counts(tmp_path, capsys):
    report = Report()
    report.add([ok("disk", "fine", free_gib=float("nan")), fail("clock", "it\nstands", "wind it")])
    assert capsys.readouterr().out == "ok      disk: fine\nFAIL    clock: it stands; wind it\n"
    assert report.failed and "1 FAILED" in report.summary()
    report.write(tmp_path / "new" / "report.json")
    assert '"free_gib": null' in (tmp_path / "new" / "report.json").read_text()
    with pytest.raises(UserError, match="cannot be written"):
        report.write(tmp_path / "new" / "report.json" / "below")
