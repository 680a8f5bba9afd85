#!/usr/bin/env bash
# Kills `train` with SIGKILL at random moments, resumes it each time, and compares what it has trained
# at the end with a run that nobody disturbed, bit for bit.
# Usage: scripts/kill_test.sh RECIPE KILLS [SECONDS] [key.path=value ...]
#   SECONDS  a run lives at most that long before it is killed; default: 1.5 / KILLS of the time that
#            the undisturbed run takes
#   TRAIN    environment: the program (default build/bin/train)
#   SEED     environment: of the random moments (default 1)
# The recipe should save often (checkpoint.every_steps) and last a second or more for each kill.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  sed -n '2,9s/^# //p' "$0" >&2
  exit 2
fi
recipe=$1
kills=$2
shift 2
seconds=
if [[ ${1:-} =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  seconds=$1
  shift
fi
train=${TRAIN:-"$(dirname "${BASH_SOURCE[0]}")/../build/bin/train"}
work=$(mktemp -d)
child=
cleanup() {
  [[ -z $child ]] || kill -KILL "$child" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
RANDOM=${SEED:-1}
common=("$recipe" "$@" checkpoint.final=true)

fail() {
  echo "kill test: $*" >&2
  exit 1
}
train_failed() {
  tail -n 20 "$work/output" >&2
  fail "$@"
}

newest() {
  [[ -d $1/checkpoints ]] || return 0
  find "$1/checkpoints" -maxdepth 1 -name 'step-*' | sed 's/.*step-//; s/\.old$//' | sort -n | tail -n 1
}

echo "kill test: the run that nobody disturbs"
begin=$(date +%s.%N)
"$train" "${common[@]}" --out "$work/whole" >"$work/output" 2>&1 || train_failed "exit code $?"
[[ -n $seconds ]] ||
  seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" -v n="$kills" 'BEGIN { print (b - a) * 1.5 / n }')
echo "kill test: $kills kills, each within $seconds seconds"

killed=0
before=0
while :; do
  # Before the first checkpoint there is nothing to resume, and the run starts anew.
  at=$(newest "$work/killed")
  mode=(--resume)
  [[ -n $at ]] || mode=(--overwrite)
  [[ ${at:-0} -ge $before ]] || fail "the newest checkpoint is of step ${at:-none}, it was of step $before"
  before=${at:-0}
  "$train" "${common[@]}" --out "$work/killed" "${mode[@]}" >"$work/output" 2>&1 &
  child=$!
  if [[ $killed -lt $kills ]]; then
    sleep "$(awk -v r="$RANDOM" -v s="$seconds" 'BEGIN { printf "%.3f", r / 32767 * s }')"
    if kill -KILL "$child" 2>/dev/null; then
      code=0
      wait "$child" 2>/dev/null || code=$?
      child=
      if [[ $code -eq 137 ]]; then
        killed=$((killed + 1))
        printf '\rkill test: %d of %d kills, checkpoint of step %s ' "$killed" "$kills" "$before"
        continue
      fi
    else
      code=0
      wait "$child" 2>/dev/null || code=$?
      child=
    fi
  else
    code=0
    wait "$child" || code=$?
    child=
  fi
  echo
  [[ $code -eq 0 ]] || train_failed "after $killed kills, train ${mode[*]} ended with exit code $code"
  break
done
[[ $killed -ge $kills ]] || fail "the run ended after $killed of $kills kills; give more train.steps or less SECONDS"

last=$(newest "$work/whole")
[[ $(newest "$work/killed") == "$last" ]] || fail "the killed run ends at step $(newest "$work/killed"), the whole at $last"
cmp "$work/whole/checkpoints/step-$last/slots.safetensors" \
  "$work/killed/checkpoints/step-$last/slots.safetensors" || fail "weights or optimizer state differ"
if [[ -d $work/whole/model ]]; then
  for file in "$work"/whole/model/*.safetensors; do
    cmp "$file" "$work/killed/model/${file##*/}" || fail "the models differ"
  done
fi
# Speed and memory differ between two runs, what was learned does not.
learned() { grep -oE '"(step|[a-z_]*(loss|accuracy))":[^,}]*' "$1/metrics.jsonl"; }
cmp <(learned "$work/whole") <(learned "$work/killed") || fail "the metrics differ"
left=$(find "$work/killed" -name '*.tmp' -o -name '.tmp-*')
[[ -z $left ]] || fail "temporary files are left: $left"
echo "kill test: $killed kills, the checkpoint of step $last and the losses are bit-equal to the undisturbed run's"
