#!/usr/bin/env bash
# Makes checkpoints/push_t-nano from nothing: data, three training seeds with two rounds of practice
# each, check, evaluation, card. Hours on two cores: the data once, then every seed, then the
# evaluations.
#
#   scripts/make_push_t_nano.sh [OUT]        default OUT: runs/push_t-nano
#
# Whatever OUT holds already is kept, so that the command may be given again after an interruption.
# EPISODES=12000 PRACTICE=1500             the expert's episodes, and the planner's in each round
# SEEDS="0 1 2" GOALS=200                  what is trained and evaluated
# FIRST_OVERRIDES TRAIN_OVERRIDES          settings of the first run of a seed, and of every run
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

train() { # FOLDER SEED ARGUMENTS...
  [ -e "$1/trained" ] && return
  run train --config nano --out "$1" --resume --json "$1/train.json" seed="$2" "${@:3}" \
    ${TRAIN_OVERRIDES:-}
  touch "$1/trained"
}

practise() { # FOLDER SEED CHECKPOINT
  [ -e "$1.collected" ] && return
  run collect push_t --policy "$3" --episodes "${PRACTICE:-1500}" --seed "$2" --out "$1" --append
  touch "$1.collected"
}

# The first rounds are short: they only have to drive well enough for the next one to learn from.
short=(refinement.steps=1500 proposal.steps=1000)
checkpoints=()
for seed in ${SEEDS:-0 1 2}; do
  name=$out/seed$seed
  checkpoints+=("$name/checkpoint")
  echo "== train, seed $seed"
  train "$name-first" "$seed" --data "$out/push_t" "${short[@]}" ${FIRST_OVERRIDES:-}
  practise "$name-practice1" "2${seed}1" "$name-first/checkpoint"
  train "$name-second" "$seed" --refine "$name-first/checkpoint" \
    --data "$out/push_t" "$name-practice1" "${short[@]}"
  practise "$name-practice2" "2${seed}2" "$name-second/checkpoint"
  train "$name" "$seed" --refine "$name-second/checkpoint" \
    --data "$out/push_t" "$name-practice1" "$name-practice2" refinement.steps=4000
  run check "$name/checkpoint" --data "$out/push_t" --json "$name/check.json"
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
