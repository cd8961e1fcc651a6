"""Scene, expert and recorder together: three processes make a dataset."""

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make setup`")
pytest.importorskip("lewm_ros.msg", reason="needs the built interfaces: run `make setup`")

from lewm_core.data import load_contract  # noqa: E402
from lewm_core.data.alignment import align_episode  # noqa: E402
from lewm_core.data.bags import BagReader, find_bags  # noqa: E402
from lewm_core.data.images import decode_message  # noqa: E402
from lewm_core.scenes import make_expert, make_scene  # noqa: E402

STEPS = 60
TIMING = {"lock_step": True, "real_time_factor": 0.0, "lock_step_timeout": 20.0}


@pytest.mark.parametrize("by_service", [True, False])
def test_the_expert_makes_whole_episodes(graph, by_service):
    out = graph.folder / "data"
    graph.start("record_dataset", {"out": out, "follow_events": not by_service,
                                   "use_sim_time": True})  # fmt: skip
    graph.start("scene", {"camera_rate": 2.0, **TIMING})
    expert = graph.start(
        "expert",
        {"episodes": 3, "steps": STEPS, "seed": 40, "recorder": "record_dataset"},
    )
    graph.wait_for_end(expert)
    assert "3 episodes of 60 steps" in expert.output()
    names = [f"episode_{i:06d}" if by_service else f"expert_{40 + i:06d}" for i in range(3)]
    graph.wait((out / names[-1] / "recorder.json").exists, "the last episode does not end")
    for name in names:
        counters = json.loads((out / name / "recorder.json").read_text())["topics"]
        # By service, what was on its way when the recorder was asked to start comes along.
        extra = {c: counters[c]["written"] - n for c, n in (
            ("/camera/image_raw", STEPS // 5 + 1), ("/command", STEPS),
            ("/scene/state", STEPS + 1))}  # fmt: skip
        assert extra["/command"] == 0
        assert all(0 <= count <= (2 if by_service else 0) for count in extra.values()), extra
        assert all(c["dropped"] == c["lost"] == 0 for c in counters.values())
    assert set(names) <= {bag.name for bag in find_bags([out])}
    with BagReader(out / names[1]) as reader:
        episode = max(align_episode(reader, load_contract(out)), key=lambda e: len(e.actions))
        pictures = [m.message for m in reader.messages(["/camera/image_raw"])]
    states, pictures_expected = replay(41)
    assert episode.action_valid[:STEPS].all()
    np.testing.assert_allclose(episode.states[: STEPS + 1], states[: len(episode.states)])
    np.testing.assert_array_equal(decode_message(pictures[-1]), pictures_expected[-1])


def replay(seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Drive the same episode without ROS; return states (K, 5) and every 5th picture."""
    physics, expert = make_scene("push_t"), make_expert("push_t", seed)
    truth = physics.reset(seed=seed)
    expert.reset(seed)
    states, pictures = [truth], [physics.render(224, 224)]
    for step in range(1, STEPS + 1):
        states.append(physics.step_control(expert.act(states[-1])))
        if step % 5 == 0:
            pictures.append(physics.render(224, 224))
    physics.close()
    return np.array(states), pictures


def test_an_expert_without_a_scene_says_what_is_missing(graph):
    line = graph.refuse("expert", {"partner_timeout": 0.5})
    assert "the scene's reset service" in line
