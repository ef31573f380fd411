#!/bin/bash
# What the influence trace adds to a training step, on this machine's GPUs. Tables on standard output and, with reports, logs and a
# line of history a run, in $OUT (default: out/). Each mode ends within nine minutes, whatever it has by then.
#
#   docs/benchmarks/step.sh one      one GPU: every factor, both captures; 147k response tokens a step
#   docs/benchmarks/step.sh reports  one H200: the load of a rank in the reports, 734k response tokens a step
#   docs/benchmarks/step.sh two      two GPUs: verl's workers alone, then a whole job under Ray
#   docs/benchmarks/step.sh eight    eight H200: a whole job on the cluster's profile, 734k response tokens a rank and step
#
# What follows the mode goes to every run behind the mode's own options: `one --device cpu --response 8:16 --prompts 1` tries it
# on a CPU. PYTHON, WORK (model and logs) and COMMIT may be set.
set -uo pipefail
cd "$(dirname "$0")/../.."
MODE=${1:?one, reports, two or eight}; shift
OUT=${OUT:-out}; WORK=${WORK:-/tmp/step-benchmark}; PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" "$WORK"
if [ -f .gpu/activate.sh ] && [ -z "${NO_BUNDLE:-}" ]; then . .gpu/activate.sh; fi  # packages for a machine that has none
unset VERL_PLATFORM VERL_ENGINE_DEVICE                                               # the job sets what it needs

measure() { # NAME VERB OPTION...
  local name=$1 verb=$2; shift 2
  "$PYTHON" -m trainer_ext.bench "$verb" --work "$WORK" --json "$OUT/$name.json" --record "$OUT/step.jsonl" \
    --note "$name" ${COMMIT:+--commit "$COMMIT"} "$@" | tee "$OUT/$name.md"
  local last; last=$(ls -td "$WORK/$verb"-*/ | head -1)
  (cd "$last" && tar -czf - ./*.log) > "$OUT/$name-logs.tar.gz"
}

case $MODE in
  one) measure step-one step --budget 470 --cases 'f*-all_selected' 'f*-inline-per_prompt' "$@" ;;
  reports) measure step-reports step --budget 470 --prompts 6 --per-prompt 16 --response 7100:8192 \
    --cases f64-inline-all_selected f32-inline-all_selected f64-inline-per_prompt "$@" ;;
  two) # where a prompt's responses are all accepted, inline capture needs a pass more: 8 of them hardly ever are
    SIZE=(--ranks 2 --prompts 2 --per-prompt 8 --cases 'f64-*-all_selected' 'f32-*-all_selected')
    measure step-two step "${SIZE[@]}" --budget 220 "$@"
    measure job-two job "${SIZE[@]}" --budget 240 --response 6144 "$@" ;;
  eight) # four sequences a micro-batch, padded to the longest: without flash-attn faster than one at a time
    measure job-eight job --profile h200x8 --ranks 8 --budget 560 --prompts 6 --per-prompt 16 --response 7100:8192 \
      --cases 'f64-inline-*' f32-inline-all_selected --override actor_rollout_ref.model.use_remove_padding=false \
      --override actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
      --override actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4 "$@" ;;
  *) echo "no mode $MODE: one, reports, two or eight" >&2; exit 2 ;;
esac
