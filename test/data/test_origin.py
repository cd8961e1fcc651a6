"""What a dataset says about itself, and what only the names of its episodes say."""

import json

import pytest

from lewm_core.data.origin import Origin, origins_of_names, read_origins
from lewm_core.errors import BagError


def dataset(folder, scene="push_t", seeds=(1,)):
    folder.mkdir(parents=True)
    runs = [{"seed": seed, "episodes": 2} for seed in seeds]
    (folder / "dataset.json").write_text(json.dumps({"scene": scene, "runs": runs}))
    return folder


def test_seeds_of_all_runs_are_known_by_the_folder_and_by_a_bag_in_it(tmp_path):
    folder = dataset(tmp_path / "mixed", seeds=(7, 3, 7))
    (folder / "push_t_s7_000000").mkdir()
    expected = [Origin("mixed", "push_t", (3, 7))]
    assert read_origins([folder]) == expected
    # Twice the same dataset is one.
    assert read_origins([folder / "push_t_s7_000000", folder]) == expected


def test_bags_of_a_robot_have_no_origin(tmp_path):
    (tmp_path / "bags").mkdir()
    assert read_origins([tmp_path / "bags"]) == []


@pytest.mark.parametrize("text", ["{", '{"scene": "push_t"}', '{"scene": "x", "runs": [{}]}'])
def test_a_damaged_file_is_an_error_not_an_unknown_origin(tmp_path, text):
    folder = dataset(tmp_path / "data")
    (folder / "dataset.json").write_text(text)
    with pytest.raises(BagError, match="dataset.json: (scene and seeds|not valid JSON)"):
        read_origins([folder])


def test_names_of_episodes_tell_scene_and_seed():
    names = ["push_t_s1_000000", "push_t_s1_000003+1", "push_t_random_s22_000007", "monday_3"]
    assert origins_of_names(names) == [Origin("push_t", "push_t", (1, 22))]
    assert origins_of_names(["run_s_5", "s1"]) == []
