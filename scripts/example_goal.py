"""Makes config/goals/push_t.png, the goal that `ros2 launch lewm_ros plan.launch.py` drives to.

The scripted expert drives the scene from the start that config/goals/push_t.yaml names; the
picture shows the end. Run it again when the scene's geometry or look changes::

    python scripts/example_goal.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lewm_core.scenes import make_expert, make_scene  # noqa: E402  (runs without installation)

FACTS = ROOT / "config" / "goals" / "push_t.yaml"
SIZE = 224  # px, as the contract's camera


def main() -> int:
    """Write the picture; return the exit status."""
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    scene, expert = make_scene("push_t"), make_expert("push_t")
    truth = start = scene.reset(seed=facts["scene_seed"])
    expert.reset(seed=facts["scene_seed"])
    for _ in range(facts["expert_steps"]):
        truth = scene.step_control(expert.act(truth))
    picture = scene.render(SIZE, SIZE)
    scene.close()
    path = FACTS.with_suffix(".png")
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"{path}: from {start.round(3)} to {truth.round(3)} (m, m, m, m, rad)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
