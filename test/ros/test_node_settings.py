"""What launch files give to nodes: typed before the file before defaults, in one process or more.

`launch` is not on PyPI: here the command line that it would build is given to real processes, and
they are asked over DDS for every parameter. test/package/test_launch.py does it with launch.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.srv import GetParameters, ListParameters  # noqa: E402
from rclpy.parameter import parameter_value_to_python  # noqa: E402

from lewm_core.errors import ConfigError  # noqa: E402
from lewm_ros.node_settings import NodeSettings, decided_entries, default_entries  # noqa: E402
from lewm_ros.processes import NodeProcess  # noqa: E402
from test.ros.conftest import Graph  # noqa: E402

#: The planner's own entry stands before /**, which must not go before it for that.
FILE = """
planner:
  ros__parameters: {status_rate: 7.0, reached_pictures: 4, goal_file: "1e5"}
lab:
  planner:
    ros__parameters: {status_rate: 8.0, reached_pictures: 4, goal_file: "1e5"}
/lab/scene: {ros__parameters: {camera_rate: 2.0}}
/**: {ros__parameters: {seed: 5, use_sim_time: true}}
"""
DEFAULTS = {
    "planner": {"use_sim_time": False, "status_rate": 3.0, "checkpoint": "push_t-nano"},
    "scene": {"seed": 3},
}
TYPED = {
    "planner": {"reached_pictures": 6, "seed": 7, "device": "cpu"},
    "scene": {"camera_rate": 4.0, "contract": "push_t"},
}


def settings(typed: bool) -> list[NodeSettings]:
    return [
        NodeSettings(name, TYPED[name] if typed else {}, DEFAULTS[name])
        for name in ("planner", "scene")
    ]


def resolved(
    graph: Graph, nodes: list[NodeSettings], namespace: str, file: Path | str, *between: str
) -> dict[str, dict]:
    """Start the nodes in one process; return all parameters of each, asked for over DDS."""
    names = [node.executable for node in nodes]
    files = []
    for layer, text in (
        ("defaults", default_entries(nodes, namespace)),
        ("decided", decided_entries(nodes, namespace, file)),
    ):
        path = graph.folder / f"{'_'.join(names)}_{layer}.yaml"
        path.write_text(text)
        files.append(["--params-file", str(path)] if text else [])
    program = ["lewm_ros.composed", *names] if len(names) > 1 else [f"lewm_ros.{names[0]}"]
    arguments = ["--ros-args", *files[0], "-r", f"__ns:={namespace}", *between, *files[1]]
    log = graph.folder / f"{'_'.join(names)}.log"
    process = NodeProcess(
        names[0], {}, graph.environment, log, program=["-m", *program, *arguments]
    )
    with process:
        graph.processes.append(process)
        found = {}
        for name in names:
            node = f"{namespace.rstrip('/')}/{name}"
            listed = graph.call(
                ListParameters, f"{node}/list_parameters", ListParameters.Request(), 60.0
            ).result.names
            values = graph.call(
                GetParameters, f"{node}/get_parameters", GetParameters.Request(names=listed)
            ).values
            found[name] = dict(zip(listed, map(parameter_value_to_python, values), strict=True))
        graph.stop(process)
    return found


def test_nothing_typed_and_no_file_leaves_the_defaults_to_a_launch_around(graph):
    found = resolved(graph, settings(False), "/", "", "-p", "use_sim_time:=true")
    assert found["planner"]["use_sim_time"] is True
    assert found["planner"]["status_rate"] == 3.0
    assert found["planner"]["checkpoint"] == "push_t-nano"
    assert found["scene"]["seed"] == 3
    assert found["scene"]["camera_rate"] == 0.0, "of no layer: the node's own"


@pytest.mark.parametrize("namespace", ["/", "/lab"])
def test_typed_before_file_before_defaults_in_one_process_and_in_two(graph, tmp_path, namespace):
    file = tmp_path / "parameters.yaml"
    file.write_text(FILE)
    together = resolved(graph, settings(True), namespace, file)
    planner, scene = together["planner"], together["scene"]
    assert planner["reached_pictures"] == 6 and planner["device"] == "cpu", "typed"
    assert planner["seed"] == 7, "typed before /**"
    assert planner["use_sim_time"] is True and scene["seed"] == 5, "/** before default"
    assert planner["status_rate"] == (8.0 if namespace == "/lab" else 7.0), "file before default"
    assert planner["goal_file"] == "1e5", "a text stays a text"
    assert planner["checkpoint"] == "push_t-nano", "default"
    assert scene["camera_rate"] == 4.0, "typed before the node's entry"
    # The scene's entries are the ones that differ; the planner takes longer to start.
    alone = resolved(graph, settings(True)[1:], namespace, file)
    assert alone["scene"] == scene


def test_the_file_decides_by_names_not_by_their_order(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/lab/scene: {ros__parameters: {seed: 1}}\n"
        "/lab/*: {ros__parameters: {seed: 2, storage: on, group: {of: [a, 'b']}}}\n"
        "/**: {ros__parameters: {seed: 3, camera_rate: 1e1}}\n"
        "/*: {ros__parameters: {image_width: 1}}\n"
    )
    text = decided_entries([NodeSettings("scene"), NodeSettings("expert")], "/lab", file)
    scene, expert = text.split("lab/expert:")
    assert "seed: 1\n" in scene and "seed: 2\n" in expert
    assert "storage: on\n" in scene and "camera_rate: 1e1\n" in scene, "as it was written"
    assert "group.of: [a, 'b']\n" in expert
    assert "image_width" not in text, "/* is no node in a namespace"
    assert decided_entries([NodeSettings("scene")], "/", "") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("planner: {status_rate: 7.0}", "line 1: planner/status_rate has no ros__parameters"),
        ("- planner", "the file has no ros__parameters"),
        ("a:\n  ros__parameters: 3", "line 2: ros__parameters of a are not NAME: VALUE"),
        ("planner: {ros__parameters: {a: 1, a: 2}}", "key 'a' is there twice"),
        ("planner: {ros__parameters: {a: 1", "line 2: did not find"),
    ],
)
def test_a_file_that_is_no_parameter_file_is_told_by_its_name(tmp_path, text, words):
    file = tmp_path / "parameters.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        decided_entries([NodeSettings("planner")], "/", file)
    assert str(file) in str(refused.value) and words in str(refused.value)
