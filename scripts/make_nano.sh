#!/usr/bin/env bash
# Makes checkpoints/SCENE-nano from nothing: data, training, rounds of practice where the scene is
# worth them, check, evaluation, card. Minutes for the easy scenes, hours for Push-T on two cores.
#
#   scripts/make_nano.sh SCENE [OUT]         default OUT: runs/SCENE-nano
#
# Whatever OUT holds already is kept, so that the command may be given again after an interruption.
# What a scene gets by default is in the list below:
# EPISODES  of the expert         STEPS    of the first stage
# PRACTICE  the planner's episodes in each of two rounds; 0: no practice
# SEEDS     training seeds        GOALS    for each evaluation
# LATER     settings of the stages after the first, without practice
# SETTINGS  others of a run that begins anew
# FIRST_OVERRIDES TRAIN_OVERRIDES  settings of the first run of a seed, and of every run
# SHIP=checkpoints/SCENE-nano      where the first seed's checkpoint goes; empty: nowhere
set -euo pipefail
later="refinement.steps=2000 proposal.steps=2000" settings= check=
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scene=${1:-}
case $scene in
  push_t) episodes=12000 steps=10000 practice=1500 seeds="0 1 2" ;;
  two_room) episodes=2000 steps=3000 practice=0 seeds="0" ;;
  reacher)
    episodes=2000 steps=8000 practice=0 seeds="0"
    later="refinement.steps=4000 proposal.steps=3000 goal_tolerance_factor=0.005"
    ;;
  cube)
    # At 64 px the cube is 4 px wide: 89 of 100 tuning goals, 93 at 96 px.
    episodes=3000 steps=4000 practice=0 seeds="0"
    later="refinement.steps=3000 proposal.steps=2500" settings="model.encoder.image_size=96"
    # No goal depends on them: the criterion asks for the cube's place.
    check="--leave-out effector_yaw,cube_yaw"
    ;;
  "") echo "usage: scripts/make_nano.sh SCENE [OUT]" >&2; exit 2 ;;
  *) episodes=4000 steps=10000 practice=0 seeds="0" ;;
esac
if [ -z "${LEWM_PYTHON:-}" ]; then
  scripts/setup.sh
  source scripts/environment.sh
fi
python=${LEWM_PYTHON:-python}
out=${2:-runs/$scene-nano}
goals=${GOALS:-200}
practice=${PRACTICE:-$practice}
export MUJOCO_GL=${MUJOCO_GL:-egl}
mkdir -p "$out"

run() { "$python" -m "lewm_core.commands.$1" "${@:2}"; }

if [ ! -e "$out/collected" ]; then
  echo "== collect"
  run collect "$scene" --episodes "${EPISODES:-$episodes}" --seed 1 --out "$out/$scene" --append
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
  run collect "$scene" --policy "$3" --episodes "$practice" --seed "$2" --out "$1" --append
  touch "$1.collected"
}

# The first rounds are short: they only have to drive well enough for the next one to learn from.
short=(refinement.steps=1500 proposal.steps=1000)
first=(--data "$out/$scene" steps="${STEPS:-$steps}" ${SETTINGS:-$settings})
checkpoints=()
for seed in ${SEEDS:-$seeds}; do
  name=$out/seed$seed
  checkpoints+=("$name/checkpoint")
  echo "== train, seed $seed"
  if [ "$practice" -gt 0 ]; then
    train "$name-first" "$seed" "${first[@]}" "${short[@]}" ${FIRST_OVERRIDES:-}
    practise "$name-practice1" "2${seed}1" "$name-first/checkpoint"
    train "$name-second" "$seed" --refine "$name-first/checkpoint" \
      --data "$out/$scene" "$name-practice1" "${short[@]}"
    practise "$name-practice2" "2${seed}2" "$name-second/checkpoint"
    train "$name" "$seed" --refine "$name-second/checkpoint" \
      --data "$out/$scene" "$name-practice1" "$name-practice2" refinement.steps=4000
  else
    train "$name" "$seed" "${first[@]}" ${LATER:-$later} ${FIRST_OVERRIDES:-}
  fi
  run check "$name/checkpoint" --data "$out/$scene" --json "$name/check.json" $check
done

# Goals that no setting was chosen on: the reporting split.
evaluate() { # NAME ARGUMENTS...
  [ -e "$out/eval-$1.json" ] || run eval "${checkpoints[@]}" --scene "$scene" \
    --episodes "$goals" --seed 80000 --out "$out/eval-$1" --json "$out/eval-$1.json" --no-video \
    "${@:2}"
}
echo "== evaluate"
evaluate default --planner default
evaluate fast --planner fast
evaluate paper --planner paper --protocol paper
evaluate search --planner search
evaluate far --planner default --protocol far

echo "== model card"
"$python" scripts/model_card_results.py "$out" "${checkpoints[0]}/README.md"
ship=${SHIP-checkpoints/$scene-nano}
if [ -n "$ship" ]; then
  # The first seed, which was the first before any of them was evaluated; not the best.
  rm -rf "$ship"
  cp -r "${checkpoints[0]}" "$ship"
  echo "shipped ${checkpoints[0]} as $ship"
fi
