#!/usr/bin/env bash
# Makes checkpoints/push_t-nano from nothing: data, three training seeds, check, evaluation, card.
# Hours on two cores: the data once, then a training for each seed, then the evaluations.
#
#   scripts/make_push_t_nano.sh [OUT]        default OUT: runs/push_t-nano
#
# Whatever OUT holds already is kept, so that the command may be given again after an interruption.
# EPISODES=12000 SEEDS="0 1 2" GOALS=200   what is collected, trained and evaluated
# SHIP=checkpoints/push_t-nano             where the first seed's checkpoint goes; empty: nowhere
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${LEWM_PYTHON:-}" ]; then
  scripts/setup.sh
  source scripts/environment.sh
fi
python=${LEWM_PYTHON:-python}
out=${1:-runs/push_t-nano}
goals=${GOALS:-200}
export MUJOCO_GL=${MUJOCO_GL:-egl}
mkdir -p "$out"

run() { "$python" -m "lewm_core.commands.$1" "${@:2}"; }

if [ ! -e "$out/collected" ]; then
  echo "== collect"
  run collect push_t --episodes "${EPISODES:-12000}" --seed 1 --out "$out/push_t" --append
  touch "$out/collected"
fi

checkpoints=()
for seed in ${SEEDS:-0 1 2}; do
  folder=$out/seed$seed
  checkpoints+=("$folder/checkpoint")
  if [ ! -e "$folder/trained" ]; then
    echo "== train, seed $seed"
    run train --data "$out/push_t" --config nano --out "$folder" --resume seed="$seed" \
      --json "$folder/train.json" ${TRAIN_OVERRIDES:-}
    touch "$folder/trained"
  fi
  run check "$folder/checkpoint" --data "$out/push_t" --json "$folder/check.json"
done

# Goals that no setting was chosen on: the reporting split.
evaluate() { # NAME ARGUMENTS...
  [ -e "$out/eval-$1.json" ] || run eval "${checkpoints[@]}" --scene push_t --episodes "$goals" \
    --seed 80000 --out "$out/eval-$1" --json "$out/eval-$1.json" --no-video "${@:2}"
}
echo "== evaluate"
evaluate proposal-cem --planner proposal+cem
evaluate proposal --planner proposal
evaluate cem --planner cem --protocol paper
evaluate nano --planner nano
evaluate far --planner proposal+cem --protocol far

echo "== model card"
"$python" scripts/model_card_results.py "$out" "${checkpoints[0]}/README.md"
ship=${SHIP-checkpoints/push_t-nano}
if [ -n "$ship" ]; then
  # The first seed, which was the first before any of them was evaluated; not the best.
  rm -rf "$ship"
  cp -r "${checkpoints[0]}" "$ship"
  echo "shipped ${checkpoints[0]} as $ship"
fi
