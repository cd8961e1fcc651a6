"""The contract: what ships is valid, and every slip is named in one line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lewm_core.data import Contract, contract_differences, load_contract, save_contract
from lewm_core.data.contract_parts import Action, ActionField, Camera, Executed, State, StateField
from lewm_core.errors import ContractError, UserError
from lewm_core.paths import find_shared, preset_names

PUSH_T = yaml.safe_load(find_shared("config/robots/push_t.yaml").read_text())


def error_of(change: Any) -> str:
    """Apply ``change`` to the Push-T contract and return what the loader complains of."""
    values = copy.deepcopy(PUSH_T)
    change(values)
    with pytest.raises(ContractError) as caught:
        Contract.from_dict(values, "robot.yaml")
    message = str(caught.value)
    assert message.startswith("robot.yaml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", preset_names("robots"))
def test_shipped_contracts_are_valid(name: str) -> None:
    # The contract of a simulated scene has the scene's name, also where it has more cameras.
    assert load_contract(name).name == {"cube_two_cameras": "cube"}.get(name, name)


def test_push_t_says_what_the_scene_does() -> None:
    contract = load_contract("push_t")
    lower, upper, rate, hold = contract.action_limits()
    np.testing.assert_allclose(lower, [-0.15, -0.15])
    np.testing.assert_allclose(upper, [0.15, 0.15])
    np.testing.assert_allclose(rate, [3.0, 3.0])
    assert hold == [0.0, 0.0]
    assert contract.camera.size == (224, 224)
    assert contract.state_names == ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
    assert contract.state_units == ["m", "m", "m", "m", "rad"]
    assert contract.topics() == ["/camera/image_raw", "/command", "/scene/state"]


def test_a_saved_contract_is_the_same(tmp_path: Path) -> None:
    contract = load_contract("push_t")
    save_contract(contract, tmp_path / "contract.yaml")
    assert load_contract(tmp_path / "contract.yaml") == contract
    assert load_contract(tmp_path) == contract, "a dataset folder stands for its contract"
    assert Contract.from_dict(contract.to_dict()) == contract


def test_differences_name_the_keys() -> None:
    contract = load_contract("push_t")
    changed = copy.deepcopy(PUSH_T)
    changed["action"]["fields"][0]["upper"] = 0.2
    changed["cameras"][0]["topic"] = "/top"
    changed["description"] = "another text"
    assert contract_differences(contract, contract) == []
    assert contract_differences(contract, Contract.from_dict(changed)) == [
        "cameras[0].topic: '/camera/image_raw' != '/top'",
        "action.fields[0].upper: 0.15 != 0.2",
    ]
    changed["action"]["fields"].pop()
    assert "action.fields: 2 entries != 1 entries" in contract_differences(
        contract, Contract.from_dict(changed)
    )


EXECUTED = {
    "topic": "/executed",
    "message": "geometry_msgs/msg/TwistStamped",
    "fields": ["twist.linear.x", "twist.linear.y"],
}


def test_the_executed_action_has_a_topic_of_its_own() -> None:
    changed = copy.deepcopy(PUSH_T)
    changed["action"]["executed"] = EXECUTED
    both = Contract.from_dict(changed)
    assert both.topics() == ["/camera/image_raw", "/command", "/executed", "/scene/state"]
    assert both.topic_types()["/executed"] == "geometry_msgs/msg/TwistStamped"
    assert both.action.learned.topic == "/command"
    changed["action"]["source"] = "executed"
    learned = Contract.from_dict(changed)
    assert learned.action.learned.topic == "/executed"
    assert Contract.from_dict(learned.to_dict()) == learned
    # Recordings have both topics; a checkpoint has learnt from one of them.
    assert contract_differences(both, learned, recordings=True) == []
    assert contract_differences(both, learned) == ["action.source: 'commanded' != 'executed'"]
    for recordings in (False, True):
        differences = contract_differences(
            load_contract("push_t"), both, recordings=recordings
        )
        assert len(differences) == 1 and differences[0].startswith("action.executed: None != ")


def positions(names: tuple[str, str] = ("agent_x", "agent_y")) -> dict[str, Any]:
    """Push-T, commanded by positions."""
    values = copy.deepcopy(PUSH_T)
    for field, name in zip(values["action"]["fields"], names, strict=True):
        field.update(unit="m", hold="last", measured=name, path_tolerance=0.02)
    return values


def test_where_positions_are_measured_may_be_added_after_the_training() -> None:
    full = Contract.from_dict(positions())
    assert Contract.from_dict(full.to_dict()) == full
    bare = positions()
    for field in bare["action"]["fields"]:
        del field["measured"], field["path_tolerance"]
    trained = Contract.from_dict(bare)
    for field in trained.to_dict()["action"]["fields"]:
        assert not {"measured", "path_tolerance"} & set(field)
    assert contract_differences(trained, full) == []
    assert trained.measured_as(full) == full
    assert full.measured_as(trained) == full
    stateless = Contract.from_dict({**bare, "states": []})
    completed = stateless.measured_as(full)
    assert contract_differences(completed, full) == []
    assert completed.proprioceptive_names == [], "a model must not be given another state"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["action"]["fields"][0].update(measured="agent_x"),
            ["action.fields[0]", "measured is for a field with hold: last"],
        ),
        (
            lambda c: c["action"]["fields"][0].update(path_tolerance=0.1),
            ["action.fields[0]", "path_tolerance is for a field with measured"],
        ),
        (
            lambda c: c.update(positions(("agent_x", "agent_z"))),
            ["velocity_y", "no state field 'agent_z'", "did you mean 'agent_"],
        ),
        (
            lambda c: c.update(positions(("agent_x", "block_angle"))),
            ["velocity_y is in m", "block_angle", "in rad"],
        ),
        (
            lambda c: c["action"].update(source="executed"),
            ["source is 'executed'", "executed names no topic"],
        ),
        (lambda c: c["action"].update(source="measured"), ["action.source", "'commanded'"]),
        (
            lambda c: c["action"].update(executed={**EXECUTED, "feilds": []}),
            ["action.executed.feilds", "did you mean 'fields'"],
        ),
        (
            lambda c: c["action"].update(executed={**EXECUTED, "fields": ["twist.linear.x"]}),
            ["executed.fields has 1 selectors", "fields has 2 entries"],
        ),
        (
            lambda c: c["action"].update(executed={**EXECUTED, "fields": ["twist.x", "twist.y"]}),
            ["action.executed", "fields[0]", "no field 'x'"],
        ),
        (
            lambda c: c["action"].update(executed={**EXECUTED, "topic": "/command"}),
            ["topics must differ", "'/command' is there twice"],
        ),
        (lambda c: c.update(control_rat=3), ["'control_rat'", "did you mean 'control_rate'"]),
        (lambda c: c["cameras"][0].update(topc="/a"), ["cameras[0].topc", "'topic'"]),
        (
            lambda c: c["action"]["fields"][1].update(uper=1),
            ["action.fields[1].uper", "did you mean 'upper'"],
        ),
        (lambda c: c["action"]["fields"][0].pop("unit"), ["action.fields[0].unit", "missing"]),
        (lambda c: c["action"]["fields"][0].update(unit=""), ["action.fields[0].unit"]),
        (
            lambda c: c["action"]["fields"][0].update(selector="twist.liner.x"),
            ["velocity_x", "no field 'liner'", "did you mean 'linear'"],
        ),
        (
            lambda c: c["action"]["fields"][0].update(selector="twist.linear"),
            ["ends at a geometry_msgs/msg/Vector3", "linear.x"],
        ),
        (
            lambda c: c["action"]["fields"][0].update(selector="twist.linear.x[0]"),
            ["not a list"],
        ),
        (
            lambda c: c["action"]["fields"][0].update(selector="header.frame_id"),
            ["string", "must be a number"],
        ),
        (lambda c: c["action"]["fields"][0].update(selector="a..b"), ["not understood"]),
        (
            lambda c: c["states"][0]["fields"][0].update(selector="position"),
            ["is a list", "position[0]"],
        ),
        (
            lambda c: c["action"]["fields"][0].update(lower=0.15, upper=-0.15),
            ["action.fields[0]", "lower 0.15 is not below upper -0.15"],
        ),
        (lambda c: c["action"]["fields"][0].update(hold=9), ["hold 9", "outside"]),
        (lambda c: c["action"]["fields"][0].update(hold="lst"), ["'lst'", "'last'"]),
        (lambda c: c["action"]["fields"][0].update(upper=float("nan")), ["fields[0].upper"]),
        (lambda c: c["action"]["fields"][0].update(rate_limit=0), ["rate_limit"]),
        (
            lambda c: c["action"]["fields"][1].update(name="velocity_x"),
            ["'velocity_x'", "twice"],
        ),
        (
            lambda c: c["action"].update(message="geometry_msgs/msg/TwistStampd"),
            ["did you mean 'geometry_msgs/msg/TwistStamped'"],
        ),
        (
            lambda c: c["action"].update(message="std_msgs/msg/Float64MultiArray"),
            ["has no header", "receive"],
        ),
        (lambda c: c["action"].update(clock="heade"), ["action.clock", "'header'"]),
        (lambda c: c["action"].update(timeout=0.05), ["timeout", "control period"]),
        (lambda c: c["cameras"][0].update(topic="camera"), ["absolute topic"]),
        (lambda c: c["cameras"][0].update(crop=[0, 0, 300, 200]), ["crop", "outside"]),
        (lambda c: c["cameras"][0].update(message="sensor_msgs/msg/Imag"), ["message"]),
        (lambda c: c.update(cameras=[]), ["cameras"]),
        (lambda c: c.update(max_gap=0.1), ["max_gap", "control periods"]),
        (lambda c: c.update(control_rate=-1), ["control_rate"]),
        (lambda c: c.update(action=3), ["action"]),
    ],
)
def test_a_slip_is_one_line_that_names_the_key(change: Any, words: list[str]) -> None:
    message = error_of(change)
    for word in words:
        assert word in message


def test_several_slips_are_counted() -> None:
    def change(values: dict[str, Any]) -> None:
        values["control_rat"] = 3
        del values["action"]["fields"][0]["unit"]

    message = error_of(change)
    assert "control_rat" in message
    assert message.endswith("(and 1 more)")


def test_files_that_cannot_be_contracts(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not exist"):
        load_contract(tmp_path / "none.yaml")
    with pytest.raises(ContractError, match="did you mean 'push_t'"):
        load_contract("pusht")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [unclosed\n")
    with pytest.raises(UserError, match=r"broken\.yaml line 2"):
        load_contract(broken)
    broken.write_text("- a list\n")
    with pytest.raises(UserError, match="must hold keys and values, but holds a list"):
        load_contract(broken)
    broken.write_text("")
    with pytest.raises(UserError, match="holds nothing"):
        load_contract(broken)


def test_the_contract_in_the_documentation_is_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "contract.md"
    example = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    contract = Contract.from_dict(yaml.safe_load(example), str(page))
    assert contract.action_names == ["shoulder", "elbow"]
    assert contract.action_limits()[3] == ["last", "last"]
    measured = [field.measured for field in contract.action.fields]
    assert measured == ["shoulder_measured", "elbow_measured"]


def test_the_documentation_has_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
    models = (Contract, Camera, Action, ActionField, Executed, State, StateField)
    keys = {key for model in models for key in model.model_fields}
    assert {key for key in keys if f"`{key}`" not in page and f".{key}`" not in page} == set()
