"""Texts that ask for more than they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from lewm_core.data.contract import load_contract
from lewm_core.errors import ContractError, UserError, one_line
from lewm_core.planning import load_planner_config
from lewm_core.reading import ReadingError, parse_json, parse_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LAUGHS, "line 6: aliases stand for more than 100000 values"),
        (MERGES, "line 6: aliases stand for more than 100000 values"),
        ("a: &a [*a]", "line 1: an alias lies in its own anchor"),
        ("[" * 100_000, "nest"),
        ("- " * 100 + "x", "nested more than 64 deep"),
        ("[" + "[]," * 200_000 + "]", "more than 100000 values"),
        ("x" * 5_000_000, "5000000 characters, 4194304 are allowed"),
        ("upper: 1\nlower: 0\nupper: 2\n", "line 3: key 'upper' is there twice"),
        ("a: 2001-99-99", "a value cannot be understood"),
        ("a: " + "9" * 5000, "a value cannot be understood"),
        ("a: !!bool x", "a value cannot be understood"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: [1, 2", "line"),
    ],
)
def test_yaml_is_refused_by_one_line(text, part):
    with pytest.raises(ReadingError, match=part) as raised:
        parse_yaml(text)
    assert "\n" not in str(raised.value)


def test_plain_yaml_is_read_with_its_anchors():
    assert parse_yaml("base: &b {x: 1}\nmore: {<<: *b, y: [2, null]}\n") == {
        "base": {"x": 1},
        "more": {"x": 1, "y": [2, None]},
    }
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000, "recursion"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": 1e999}', "beyond the range"),
        ('{"a": ' + "9" * 30 + "}", "beyond 2\\^63"),
        ('{"a": 1, "a": 2}', "key 'a' is there twice"),
    ],
)
def test_json_is_refused(text, part):
    with pytest.raises(ReadingError, match=part):
        parse_json(text)


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_only_files_are_read(tmp_path, path):
    link = tmp_path / "contract.yaml"
    link.symlink_to(path)
    with pytest.raises(ContractError, match="contract.yaml"):
        load_contract(link)


def test_the_shipped_files_are_far_from_the_limits():
    for path in Path(__file__).parents[2].glob("config/*/*.yaml"):
        assert isinstance(parse_yaml(path.read_text()), dict), path


def test_a_preset_that_fills_the_memory_is_refused(tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("solver: {candidates: 60000, elites: 10, horizon: 1000}\n")
    with pytest.raises(UserError, match="preset.yaml: solver.*60000000 blocks.*262144 are allowed"):
        load_planner_config(file)


def test_a_message_is_one_line_whatever_it_quotes():
    error = UserError("topic /a\n\x1b[31mred\x00\u202e is\tunknown " + "x" * 10_000)
    assert str(error).startswith(r"topic /a \x1b[31mred\x00\u202e is unknown xxx")
    assert len(str(error)) <= 2000 and "[...]" in str(error)
    assert one_line("ä ok") == "ä ok"
