"""Tasks from recordings: the very states of the episode, or its poses at rest."""

import numpy as np
import pytest
import yaml

from lewm_core.collection.recording import EpisodeCollector
from lewm_core.data.contract import load_contract
from lewm_core.errors import BagError, UserError
from lewm_core.evaluation.closed_loop import ReplayActions, run_goal
from lewm_core.evaluation.recorded_goals import find_episodes, goals_from_bags

STEPS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    collector = EpisodeCollector("push_t", load_contract("push_t"))
    for index in range(6):
        seed = np.random.SeedSequence(5, spawn_key=(index,))
        collector.collect(folder / f"push_t_s5_{index:06d}", STEPS, 5, seed)
    collector.close()
    return folder


def draw(scene, data, number=6, seed=1, **more):
    # Both splits, so that six episodes are enough.
    drawn = []
    for split in ("reporting", "tuning"):
        drawn.append(goals_from_bags(scene, find_episodes([data]), load_contract("push_t"),
                                     number, seed, split=split, **more))
    return drawn


def test_episodes_are_run_again_from_their_seed(scene, data):
    for recorded in draw(scene, data):
        assert recorded.simulated_again == len(recorded.goals) and recorded.from_rest == 0
        for goal in recorded.goals:
            scene.set_state(goal.start)
            np.testing.assert_array_equal(scene.ground_truth(), goal.start_truth)
            for action in goal.actions:
                truth = scene.step_control(action)
            np.testing.assert_array_equal(truth, goal.goal_truth)
            np.testing.assert_array_equal(scene.render(224, 224), goal.goal_picture)
            assert run_goal(scene, goal, ReplayActions()).success_any


def test_splits_share_no_episode_and_seeds_decide_the_starts(scene, data):
    reporting, tuning = draw(scene, data)
    names = [{goal.episode.split(",")[0] for goal in r.goals} for r in (reporting, tuning)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 6
    again, _ = draw(scene, data)
    other, _ = draw(scene, data, seed=2)
    assert [g.episode for g in again.goals] == [g.episode for g in reporting.goals]
    assert {g.episode for g in other.goals} != {g.episode for g in reporting.goals}


def without_seed(data, tmp_path):
    """The same bags, as a recorder leaves them: nobody wrote down the scene's seed."""
    import shutil

    copy = shutil.copytree(data, tmp_path / "copy")
    for file in copy.glob("*/metadata.yaml"):
        content = yaml.safe_load(file.read_text())
        del content["rosbag2_bagfile_information"]["custom_data"]["scene_seed"]
        file.write_text(yaml.safe_dump(content))
    return copy


def test_without_a_seed_the_start_is_the_recorded_pose_at_rest(scene, data, tmp_path):
    again, rest = draw(scene, data)[0], draw(scene, without_seed(data, tmp_path))[0]
    assert rest.from_rest == len(rest.goals) and rest.simulated_again == 0
    for moving, still in zip(again.goals, rest.goals, strict=True):
        assert moving.episode == still.episode
        np.testing.assert_allclose(still.start_truth, moving.start_truth, atol=1e-9)
        np.testing.assert_allclose(still.goal_truth, moving.goal_truth, atol=1e-9)
        assert not np.array_equal(still.start, moving.start)
        # The same pose is the same picture, but for rounding at an edge.
        difference = np.abs(still.goal_picture.astype(int) - moving.goal_picture)
        assert difference.mean() < 0.1


def test_a_seed_that_tells_another_story_is_not_believed(scene, data, tmp_path):
    copy = without_seed(data, tmp_path)
    for file in copy.glob("*/metadata.yaml"):
        content = yaml.safe_load(file.read_text())
        content["rosbag2_bagfile_information"]["custom_data"]["scene_seed"] = "12345"
        file.write_text(yaml.safe_dump(content))
    recorded, _ = draw(scene, copy)
    assert recorded.simulated_again == 0 and recorded.from_rest == len(recorded.goals) > 0


def test_episodes_that_are_too_short_are_skipped_and_none_left_is_an_error(scene, data):
    with pytest.raises(UserError, match="no reporting goal 100 control steps away.*no stretch"):
        goals_from_bags(scene, find_episodes([data]), load_contract("push_t"), 3, 1, 100)


def test_a_folder_without_bags_is_an_error(tmp_path):
    with pytest.raises(BagError):
        find_episodes([tmp_path])
