#!/usr/bin/env bash
# Builds the fuzzers of tests/fuzz in build-fuzz/ and runs each; what they find stays there.
# Usage: scripts/fuzz.sh [-j PROCESSES] [SECONDS] [TARGET...]    (default: 1, 600, all)
# Prints one line a target; exits with 1 when one found a crash, a leak or an input that takes too long.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '2,4s/^# //p' "$0" >&2
  exit 2
}

jobs=1
while getopts j: option; do
  case $option in
    j) jobs=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
seconds=600
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
[[ $jobs =~ ^[1-9][0-9]*$ ]] || usage

build="build-fuzz"
compiler=${CLANGXX:-clang++}
if ! command -v "$compiler" >/dev/null; then
  echo "fuzz: $compiler was not found; install it: apt-get install clang (libFuzzer comes with it)" >&2
  exit 2
fi

targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for source in tests/fuzz/fuzz_*.cpp; do
    name=${source##*/fuzz_}
    targets+=("${name%.cpp}")
  done
fi
for target in "${targets[@]}"; do
  if [[ ! -f tests/fuzz/fuzz_$target.cpp ]]; then
    echo "fuzz: there is no target '$target'; tests/fuzz/fuzz_TARGET.cpp has them" >&2
    exit 2
  fi
done

mkdir -p "$build"
if ! { cmake -S tests/fuzz -B "$build" -DLITHE_FUZZ=ON -DCMAKE_CXX_COMPILER="$compiler" &&
       cmake --build "$build" -j "$(nproc)" --target "${targets[@]/#/fuzz_}"; } >"$build/build.log" 2>&1; then
  tail -n 30 "$build/build.log" >&2
  echo "fuzz: the build failed; $build/build.log has all of it" >&2
  exit 1
fi

# The first is the value of "stat::NAME: VALUE" in a log, the second the last "cov: N".
stat() { sed -n "s/^stat::$1: *//p" "$2" | awk '{ sum += $1 } END { print sum + 0 }'; }
coverage() { grep -ao ' cov: [0-9]*' "$1" | tail -n 1 | tr -dc 0-9; }

status=0
for target in "${targets[@]}"; do
  work=$build/$target
  mkdir -p "$work/found" "$work/crashes"
  log=$work/log.txt
  # What an earlier call left would be counted again.
  rm -f "$work"/*.log "$work"/crashes/*
  program=$PWD/$build/fuzz_$target
  options=(-rss_limit_mb=2048 -timeout=10 -max_total_time="$seconds" -print_final_stats=1
    -artifact_prefix=crashes/ found "$PWD/tests/fuzz/corpus/$target")
  if [[ $jobs -gt 1 ]]; then
    options=(-jobs="$jobs" -workers="$jobs" "${options[@]}")
  fi
  code=0
  (cd "$work" && exec "$program" "${options[@]}") >"$log" 2>&1 || code=$?
  if [[ $jobs -gt 1 ]]; then
    cat "$work"/fuzz-*.log >"$log"
  fi
  crashes=$(find "$work/crashes" -type f | wc -l)
  printf '%-14s %10s runs %8s/s  coverage %6s  crashes %s\n' "$target" \
    "$(stat number_of_executed_units "$log")" "$(stat average_exec_per_sec "$log")" \
    "$(coverage "$log")" "$crashes"
  if [[ $code -ne 0 || $crashes -ne 0 ]]; then
    status=1
    echo "fuzz: $target failed (exit code $code); inputs in $work/crashes, log in $log" >&2
    grep -aE -m 3 '^(SUMMARY|==[0-9]+==ERROR)|runtime error' "$log" >&2 || tail -n 5 "$log" >&2
  fi
done
exit $status
