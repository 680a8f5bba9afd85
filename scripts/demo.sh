#!/usr/bin/env bash
# The quickstart, then three short fine-tunings of its model that differ in one choice, and their table.
# Usage: scripts/demo.sh TRAIN_PROGRAM   (`./lithe demo` builds it and calls this)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

train=${1:?usage: scripts/demo.sh TRAIN_PROGRAM}
recipe=configs/quickstart/vit_fashion_mnist.yaml
out=runs/demo

# What the short runs share, and what each changes. They go on from the model that the quickstart leaves.
short_steps=40
short=("train.steps=$short_steps" "checkpoint.final=false" "model.path=$out/model"
  "model.weights=pretrained" "optimizer.lr=1e-4" "schedule.warmup_steps=0")
names=("full" "75 % of blocks frozen" "recompute")
folders=("$out-full" "$out-frozen" "$out-recompute")
full=()
# 75 % of the recipe's four blocks, and what lies below them, so that backward ends early.
frozen=("freeze.layers=0-2" "freeze.patterns=vit.embeddings.*")
recompute=("recompute.blocks=all")

# Keys of summary.json that the table shows.
key_predicted=predicted_peak_bytes
key_measured=measured_peak_bytes
key_step=times.step_ms_median
key_accuracy=metrics.accuracy

say() { printf '\n== %s\n' "$*"; }

# value FILE DOTTED.KEY: a number of a JSON file written with one key a line and two spaces a level;
# "-" when it is not there.
value() {
  LC_ALL=C awk -v wanted="$2" '
    match($0, /^ *"[^"]+": /) {
      depth = index($0, "\"") - 1
      depth = depth / 2
      split($0, part, "\"")
      path[depth] = part[2]
      rest = substr($0, RLENGTH + 1)
      sub(/,$/, "", rest)
      dotted = path[1]
      for (i = 2; i <= depth; ++i) dotted = dotted "." path[i]
      if (dotted == wanted && rest != "null" && rest !~ /^[{[]/) { print rest; found = 1; exit }
    }
    END { if (!found) print "-" }' "$1"
}

# shown KIND NUMBER: as the table prints it.
shown() {
  if [[ $2 == - ]]; then
    echo -
    return
  fi
  case $1 in
    bytes) LC_ALL=C awk -v x="$2" 'BEGIN { printf "%.2f MiB", x / 1048576 }' ;;
    time) LC_ALL=C awk -v x="$2" 'BEGIN { printf "%.1f ms", x }' ;;
    share) LC_ALL=C awk -v x="$2" 'BEGIN { printf "%.2f %%", 100 * x }' ;;
  esac
}

row() { printf '  %-24s %15s %15s %12s %12s\n' "$@"; }

# short_run NAME FOLDER [key=value...]: quiet unless it fails, with the program's exit code.
short_run() {
  local name=$1 folder=$2 code=0 started=$SECONDS log
  shift 2
  log=$(mktemp)
  "$train" "$recipe" "${short[@]}" "$@" --out "$folder" >"$log" 2>&1 || code=$?
  if ((code)); then
    cat "$log" >&2
    rm -f "$log"
    printf 'demo: the run "%s" failed with exit code %d\n' "$name" "$code" >&2
    exit "$code"
  fi
  rm -f "$log"
  printf '  %-24s %s s\n' "$name" $((SECONDS - started))
}

[[ -f $recipe ]] || {
  printf 'demo: %s is missing\n' "$recipe" >&2
  exit 3
}

# These folders are the demo's own: a second demo starts anew.
rm -rf -- "$out" "${folders[@]}"

say "Training a vision transformer on Fashion-MNIST ($recipe)"
"$train" "$recipe" --out "$out"

say "Fine-tuning that model for $short_steps steps: full, with 75 % of the blocks frozen, with recompute"
short_run "${names[0]}" "${folders[0]}" "${full[@]}"
short_run "${names[1]}" "${folders[1]}" "${frozen[@]}"
short_run "${names[2]}" "${folders[2]}" "${recompute[@]}"

say "What each choice costs ($short_steps steps; accuracy after them on the test images)"
row "" "predicted peak" "measured peak" "step time" "accuracy"
for i in 0 1 2; do
  summary=${folders[i]}/summary.json
  row "${names[i]}" \
    "$(shown bytes "$(value "$summary" "$key_predicted")")" \
    "$(shown bytes "$(value "$summary" "$key_measured")")" \
    "$(shown time "$(value "$summary" "$key_step")")" \
    "$(shown share "$(value "$summary" "$key_accuracy")")"
done
printf '\n  Quickstart: test accuracy %s after %s s in all. Report: %s/report.html\n' \
  "$(shown share "$(value "$out/summary.json" "$key_accuracy")")" "$SECONDS" "$out"
