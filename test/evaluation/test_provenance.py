"""Who was trained on the evaluation's episodes is not evaluated on them."""

import pytest

from lewm_core.errors import UserError
from lewm_core.evaluation.provenance import (
    held_out_names,
    knows_its_data,
    refuse_trained_seed,
    training_origins,
)

RECORDED = {
    "data_sources": [{"name": "pushes", "scene": "push_t", "seeds": [1, 9]}],
    "trained_episodes": ["push_t_s1_000000"],
    "held_out_episodes": ["push_t_s1_000005"],
}
NAMES_ONLY = {"trained_episodes": ["push_t_s4_000000"], "held_out_episodes": ["push_t_s4_000001"]}


@pytest.mark.parametrize(
    ("metadata", "seed", "dataset"),
    [(RECORDED, 1, "pushes"), (RECORDED, 9, "pushes"), (NAMES_ONLY, 4, "push_t")],
)
def test_the_seed_of_the_training_data_is_refused_by_name(metadata, seed, dataset):
    with pytest.raises(UserError, match=rf"mine was trained on dataset '{dataset}'.*seed {seed}"):
        refuse_trained_seed("mine", metadata, "push_t", seed)


def test_other_seeds_other_scenes_and_unknown_data_are_not_refused():
    refuse_trained_seed("mine", RECORDED, "push_t", 2)
    refuse_trained_seed("mine", RECORDED, "reacher", 1)
    refuse_trained_seed("mine", {}, "push_t", 1)
    assert knows_its_data(RECORDED) and not knows_its_data({})


def test_episodes_of_a_dataset_that_was_renamed_are_still_found_by_their_names():
    metadata = {**RECORDED, "trained_episodes": ["push_t_s1_000000", "push_t_s50_000000"]}
    assert [origin.seeds for origin in training_origins(metadata)] == [(1, 9), (1, 50)]


def test_only_held_out_episodes_are_taken():
    available = ["push_t_s1_000000", "push_t_s1_000005", "elsewhere"]
    assert held_out_names("mine", RECORDED, available, "data") == ["push_t_s1_000005"]


def test_no_held_out_episode_is_an_error_that_says_so():
    with pytest.raises(UserError, match="none of its 2 episodes was held out.*1 were trained on"):
        held_out_names("mine", RECORDED, ["push_t_s1_000000", "elsewhere"], "data")
    # Listed on both sides by mistake: trained on is what counts.
    both = {"trained_episodes": ["a"], "held_out_episodes": ["a"]}
    with pytest.raises(UserError, match="none of its 1"):
        held_out_names("mine", both, ["a"], "data")
