from pathlib import Path

import pytest

from lewm_core.errors import ConfigError
from lewm_core.planning import (
    CEMConfig,
    ControllerConfig,
    ObjectiveConfig,
    PlannerConfig,
    ProposalStartConfig,
    load_planner_config,
)


def test_the_paper_preset_is_the_papers():
    config = load_planner_config("paper")
    assert config.solver == CEMConfig()
    assert config.controller == ControllerConfig()
    assert config.controller.execute_blocks == config.solver.horizon == 5


def test_the_search_preset_searches_little_replans_often_and_arrives():
    config = load_planner_config("search")
    assert config.solver.candidates * config.solver.rounds <= 2000
    assert config.controller.execute_blocks < config.solver.horizon
    # A horizon that always ends a fixed time from now never arrives when it is replanned.
    assert config.controller.shrink_horizon or config.objective.running_weight > 0
    assert config.controller.warm_start
    assert config.solver.noise_correlation > 0


def test_presets_name_every_key():
    """No hidden default: whoever opens a preset sees all there is to set."""
    import yaml

    from lewm_core.paths import config_path

    for name in ("default", "fast", "paper", "search"):
        written = yaml.safe_load(config_path("planner", name).read_text())
        config = load_planner_config(name)
        assert set(written["solver"]) == set(type(config.solver).model_fields)
        if config.solver.proposal is not None:
            assert set(written["solver"]["proposal"]) == set(ProposalStartConfig.model_fields)
        assert set(written["objective"]) == set(ObjectiveConfig.model_fields)
        assert set(written["controller"]) == set(ControllerConfig.model_fields)


def test_a_path_is_read_too(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("solver:\n  rounds: 3\n")
    assert load_planner_config(path).solver.rounds == 3
    assert load_planner_config(str(path)).solver.candidates == 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("solver:\n  candidate: 3\n", ["solver.candidate", "candidates"]),
        ("controler: {}\n", ["controler", "controller"]),
        ("solver:\n  rounds: 0\n", ["solver.rounds", "0"]),
        ("solver:\n  kind: proposal\n  horizon: 0\n", ["horizon", "0"]),
        ("solver:\n  horizon: 3\n", ["execute_blocks (5)", "horizon (3)"]),
        ("controller:\n  minimum_horizon: 7\n", ["minimum_horizon (7)"]),
        ("solver:\n  elites: 500\n", ["elites (500)", "candidates (300)"]),
        ("controller:\n  time_limit: soon\n", ["time_limit", "'soon'", "seconds nor auto"]),
        ("controller:\n  time_limit: 0\n", ["time_limit", "0"]),
        ("solver: [\n", ["YAML"]),
        ("- 1\n", ["must hold keys"]),
    ],
)
def test_errors_are_one_line_with_file_key_and_mend(tmp_path: Path, text: str, words: list[str]):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_planner_config(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"default, fast, paper, search"):
        load_planner_config("papper")


def test_a_preset_survives_a_round_trip():
    config = load_planner_config("search")
    assert PlannerConfig.model_validate(config.model_dump()) == config
