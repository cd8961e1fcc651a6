"""package.xml, setup.py and CMakeLists.txt say the same; shipped pictures show the scene."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lewm_core.scenes import make_expert, make_scene
from test.package.conftest import ROOT


@pytest.fixture(scope="module")
def package_xml() -> ElementTree.Element:
    """The root element of package.xml."""
    return ElementTree.parse(ROOT / "package.xml").getroot()


def test_versions_and_licence_agree(package_xml: ElementTree.Element) -> None:
    setup = (ROOT / "setup.py").read_text()
    assert package_xml.findtext("version") == re.search(r'version="([^"]+)"', setup)[1]
    assert package_xml.findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_interfaces_are_all_built() -> None:
    listed = set(re.findall(r"(?:msg|srv|action)/\w+\.\w+", (ROOT / "CMakeLists.txt").read_text()))
    files = [p for kind in ("msg", "srv", "action") for p in (ROOT / kind).glob(f"*.{kind}")]
    assert listed == {str(path.relative_to(ROOT)) for path in files}


def test_ros_modules_that_are_imported_are_declared(package_xml: ElementTree.Element) -> None:
    declared = {element.text for element in package_xml.iter() if element.tag.endswith("depend")}
    imported = set()
    for path in [*(ROOT / "lewm_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        pattern = r"^\s*(?:from|import) (\w+_msgs|\w+_srvs|\w+_interfaces|rclpy|launch\w*)\b"
        imported |= set(re.findall(pattern, path.read_text(), re.MULTILINE))
    assert imported <= declared, imported - declared


def test_every_node_has_a_program() -> None:
    nodes = re.search(r"foreach\(node ([\w ]+)\)", (ROOT / "CMakeLists.txt").read_text())[1]
    for name in nodes.split():
        module = ROOT / "lewm_ros" / f"{name}.py"
        if not module.exists():
            module = ROOT / "lewm_ros" / name / "__init__.py"
        assert "\ndef main(" in module.read_text(), name


def test_example_goal_shows_what_the_scene_draws() -> None:
    folder = ROOT / "config" / "goals"
    facts = yaml.safe_load((folder / "push_t.yaml").read_text())
    shipped = cv2.imread(str(folder / "push_t.png"), cv2.IMREAD_COLOR)
    scene, expert = make_scene("push_t"), make_expert("push_t")
    try:
        truth = scene.reset(seed=facts["scene_seed"])
        expert.reset(seed=facts["scene_seed"])
        for _ in range(facts["expert_steps"]):
            truth = scene.step_control(expert.act(truth))
        drawn = cv2.cvtColor(scene.render(*shipped.shape[1::-1]), cv2.COLOR_RGB2BGR)
    finally:
        scene.close()
    difference = np.abs(drawn.astype(float) - shipped).mean()
    assert difference < 1.0, "run python scripts/example_goal.py again"


def test_nothing_of_a_machine_is_in_the_scripts() -> None:
    for path in [*(ROOT / "scripts").glob("*"), ROOT / "Makefile", ROOT / ".ci" / "run"]:
        if Path(path).is_file():
            assert not re.search(r"/root/|/home/|/tmp/", path.read_text()), path
