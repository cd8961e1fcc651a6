#!/usr/bin/env bash
# The whole loop over ROS: record the scene driven by its expert, train on exactly these bags,
# plan with exactly that checkpoint. docs/end-to-end.md explains each step and shows a result.
#
#   scripts/record_train_plan.sh [OUT] [lewm-train overrides such as steps=2000]
#
# SCENE=push_t CONTRACT=push_t            which scene, and under which contract; default: its own
# EPISODES=100 STEPS=250 GOALS=10 SEED=0  what is recorded, and how many goals are driven to
# CONFIG=config/train/nano.yaml           what is trained
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${LEWM_PYTHON:-}" ]; then
  scripts/setup.sh
  source scripts/environment.sh
fi
python=${LEWM_PYTHON:-python}
scene=${SCENE:-push_t}
contract=${CONTRACT:-$scene}

out=${1:-runs/loop}
shift $(($# > 0 ? 1 : 0))
if [ -e "$out" ]; then
  echo "record_train_plan: $out exists; remove it or name another folder" >&2
  exit 1
fi
mkdir -p "$out/logs"

# A ROS graph of its own: no robot nearby hears these commands.
export ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-$((RANDOM % 100 + 1))}
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST MUJOCO_GL=${MUJOCO_GL:-egl}

nodes=()
end_nodes() {
  for pid in "${nodes[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
  for pid in "${nodes[@]}"; do wait "$pid" || true; done
  nodes=()
}
trap end_nodes EXIT

echo "== record: ${EPISODES:-100} episodes of ${STEPS:-250} control steps"
# In lock step the scene waits for every command, so time runs as fast as the machine can.
"$python" -m lewm_ros.scene --ros-args -p scene:="$scene" -p contract:="$contract" \
  -p lock_step:=true -p real_time_factor:=0.0 \
  >"$out/logs/scene.log" 2>&1 &
nodes+=($!)
"$python" -m lewm_ros.record_dataset --ros-args -p out:="$out/bags" -p contract:="$contract" \
  -p use_sim_time:=true \
  >"$out/logs/record_dataset.log" 2>&1 &
nodes+=($!)
"$python" -m lewm_ros.expert --ros-args -p scene:="$scene" -p episodes:="${EPISODES:-100}" -p steps:="${STEPS:-250}" \
  -p seed:="${SEED:-0}" -p recorder:=record_dataset 2>&1 | tee "$out/logs/expert.log"
end_nodes
tail -n 3 "$out/logs/record_dataset.log"

echo "== train on $out/bags"
"$python" -m lewm_core.commands.train --data "$out/bags" \
  --config "${CONFIG:-config/train/nano.yaml}" --out "$out/train" "$@"

echo "== plan with $out/train/checkpoint"
"$python" -m lewm_ros.demo --checkpoint "$out/train/checkpoint" --goals "${GOALS:-10}" \
  --out "$out/demo"
