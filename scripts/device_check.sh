#!/usr/bin/env bash
# Builds on a machine with an NVIDIA GPU, compares every CUDA kernel with the CPU, times the large
# shapes beside PyTorch and runs compute-sanitizer over the registry.
#
#   scripts/device_check.sh [--build | --quick | --steps | --sanitize [OP...]]
#     --build: only build; --quick: build, tests and compare; --steps: build and time training
#     steps; --sanitize: build, memcheck and racecheck, of all cases or those of these ops
#
# Results go to $OUT (default: build-device/results): machine.json, log.txt, compare.json,
# support.json, perf.json, peers.json, table.md, steps.json, steps.md, trace_*.json, sanitizer.txt.
# Ends within SECONDS_LIMIT (default 530); exits with 1 when a step fails or is cut off. Headers that
# the machine lacks may lie in .carry/include, libraries (utf8proc, OpenBLAS with OpenMP) in
# .carry/lib.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

mode=${1:-all}
case "$mode" in
  --build | --quick | --steps | --sanitize | all) ;;
  *) echo "device_check.sh: unknown option '$1'; use --build, --quick, --steps or --sanitize" >&2
     exit 2 ;;
esac

[[ $# == 0 ]] || shift
sanitized=$*  # ops
build="build-device"
out=${OUT:-$build/results}
limit=${SECONDS_LIMIT:-530}
mkdir -p "$build" "$out"
[[ -d /usr/local/cuda/bin ]] && PATH=/usr/local/cuda/bin:$PATH
log=$out/log.txt
: > "$log"
failed=()
summary=()

say() { echo "== $*" | tee -a "$log"; }

# step NAME SECONDS COMMAND...: runs it, keeps its output in the log, notes how it ended.
step() {
  local name=$1 allowed=$2 left=$((limit - SECONDS)) start=$SECONDS rc=0
  shift 2
  if ((left < 10)); then
    summary+=("$name: not run, the time is up")
    failed+=("$name")
    return 1
  fi
  say "$name"
  timeout $((allowed < left ? allowed : left)) "$@" >> "$log" 2>&1 || rc=$?
  summary+=("$name: $([[ $rc == 0 ]] && echo ok || echo "FAILED with $rc"), $((SECONDS - start)) s")
  if [[ $rc != 0 ]]; then
    failed+=("$name")
    return 1
  fi
}

# Another compiler than the one that CI uses may warn of more; here that must not stop the kernels.
lenient=$PWD/$build/lenient.sh
cat > "$lenient" << 'LAUNCHER'
#!/usr/bin/env bash
args=()
for a in "$@"; do
  case $a in -Werror | all-warnings | -Xcompiler=-Werror) ;; *) args+=("$a") ;; esac
done
exec "${args[@]}"
LAUNCHER
chmod +x "$lenient"

configure() {
  local options=(-DCMAKE_BUILD_TYPE=Release -DLITHE_CUDA=ON -DLITHE_CCACHE=OFF
    "-DCMAKE_CXX_COMPILER_LAUNCHER=$lenient" "-DCMAKE_CUDA_COMPILER_LAUNCHER=$lenient")
  command -v ninja > /dev/null && options+=(-G Ninja)
  local include="" toolkit
  [[ -d .carry/include ]] && include="-isystem $PWD/.carry/include"
  # A toolkit without cuBLASLt: PyTorch's own wheel carries one.
  toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
  if ! compgen -G "$toolkit/lib64/libcublasLt.so*" > /dev/null; then
    local wheel
    wheel=$(python3 -c 'import nvidia, glob; print(next(iter(
      f for p in nvidia.__path__ for f in glob.glob(p + "/**/libcublasLt.so*", recursive=True)), ""))')
    echo "cuBLASLt of the toolkit is missing; using '$wheel'"
    options+=("-DCUDA_cublasLt_LIBRARY=$wheel")
    include+=" -isystem $(dirname "$(dirname "$wheel")")/include"
  fi
  if [[ -f .carry/lib/libutf8proc.a ]]; then
    options+=("-DLITHE_UTF8PROC=$PWD/.carry/lib/libutf8proc.a"
      "-DLITHE_UTF8PROC_INCLUDE=$PWD/.carry/include")
  fi
  if [[ -f .carry/lib/libopenblas.so.xz ]]; then
    mkdir -p "$build/lib"
    xz -dc .carry/lib/libopenblas.so.xz > "$build/lib/libopenblas.so.0"
    ln -sf libopenblas.so.0 "$build/lib/libopenblas.so"
    options+=("-DLITHE_BLAS_LIBRARY=$PWD/$build/lib/libopenblas.so"
      "-DLITHE_CBLAS_INCLUDE=$PWD/.carry/include")
  fi
  if ! compgen -G "$toolkit/lib64/libcudnn.so*" > /dev/null; then
    local cudnn
    cudnn=$(python3 -c 'import nvidia, glob; print(next(iter(
      f for p in nvidia.__path__ for f in glob.glob(p + "/cudnn/lib/libcudnn.so.9")), ""))')
    echo "cuDNN of the toolkit is missing; using '$cudnn'"
    [[ -n $cudnn ]] && options+=("-DLITHE_CUDNN_ROOT=$(dirname "$(dirname "$cudnn")")")
  fi
  cmake -S . -B "$build" "${options[@]}" "-DCMAKE_CXX_FLAGS=$include" \
    "-DCMAKE_CUDA_FLAGS=$include"
}

# The whole registry under a tool, in shares that run beside one another; one that does not end in time
# says how far it came. Instrumenting some of the kernels only makes racecheck fail, so it watches the
# libraries' too: hazards inside of those are counted apart and are no failure.
sanitize_share() {
  local tool=$1 share=$2 op=${3:-} rc=0 text own library
  text=$(timeout "$sanitizer_limit" compute-sanitizer --tool "$tool" --show-backtrace no \
    --error-exitcode 99 "$build/bin/op_registry" --mode run --device cuda --part "$share" \
    ${op:+--op "$op"} 2>&1) || rc=$?
  own=$(grep -aE '^=========' <<< "$text" | grep -ac 'lithe::')
  library=$(grep -aE '^=========.*Race reported' <<< "$text" | grep -acv 'lithe::')
  echo "$tool ${op:+$op }$share: rc $rc, own reports $own, races within libraries $library;" \
    "$(grep -aE ' cases, ' <<< "$text" | tail -1 | cut -d\; -f1);" \
    "$(grep -aE 'SUMMARY|passed,' <<< "$text" | tr '\n' ' ')"
  if [[ $rc == 99 && $own == 0 && $library -gt 0 ]]; then
    grep -aoE 'Race reported between .* access at [^ (+]*' <<< "$text" | sort | uniq -c | head -5
    return 0
  fi
  # 1: a comparison failed, which is not this tool's finding.
  if [[ $rc != 0 && $rc != 1 ]]; then
    head -60 <<< "$text" | sed -E 's/>\([^)]*\)/>/g' | cut -c1-400
    return 1
  fi
}
export -f sanitize_share
export build

# sanitize TOOL
sanitize() {
  local op shares=128
  [[ -z $sanitized ]] || shares=6
  for op in ${sanitized:-""}; do
    for ((k = 1; k <= shares; ++k)); do echo "$1 $k/$shares${op:+ $op}"; done
  done | xargs -P "$(nproc)" -L 1 bash -c 'sanitize_share "$0" "$@"' >> "$out/sanitizer.txt" 2>&1
}
export -f sanitize
export out sanitized

# The machine that the figures belong to.
describe_machine() {
  local name="" driver="" memory="" cuda
  IFS=, read -r name driver memory < <(
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader)
  cuda=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
  printf '{\n "date": "%s",\n "gpu": "%s",\n "memory": "%s",\n "driver": "%s",\n "cuda": "%s"\n}\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$name" "${memory# }" "${driver# }" "$cuda"
}
describe_machine > "$out/machine.json"
tee -a "$log" < "$out/machine.json"
registry=$build/bin/op_registry

# Training steps beside PyTorch: steps.json, steps.md and one trace.
steps() {
  python3 bench/steps.py --device cuda --lithe "$build/bin/bench_step" --out "$out" --threads 0 \
    --trace 'bert-cls 32x128 bf16' --limit "$steps_limit"
}
export -f steps
# Beside the other steps there is time for the first cases only.
steps_limit=290
[[ $mode == all ]] && steps_limit=150
export steps_limit

# `timeout` starts programs, not functions: these run in a shell of their own.
export -f configure
export lenient

if step configure 60 bash -c configure &&
  step build 300 cmake --build "$build" --parallel "$(nproc)" \
    --target op_registry --target test_tensor_core --target test_train \
    --target test_train_cuda --target bench_step --target train && [[ $mode != --build ]]; then
  export LD_LIBRARY_PATH=$PWD/$build/lib:${LD_LIBRARY_PATH:-}
  if [[ $mode != --steps && $mode != --sanitize ]]; then
    step "memory tests" 60 "$build/bin/test_tensor_core"
    step "training tests" 150 "$build/bin/test_train" -tc='CUDA*,*PyTorch*,*bf16*'
    step "hot path" 60 "$build/bin/test_train_cuda"
    step compare 240 "$registry" --mode compare --device cuda --json "$out/compare.json"
  fi
  if [[ $mode == all ]]; then
    step perf 120 "$registry" --mode perf --device cuda --case large --json "$out/perf.json"
    step peers 120 python3 bench/peers/ops_pytorch.py --json "$out/peers.json" \
      --lithe "$out/perf.json"
    sed -n '/^| op/,$p' "$log" | sed '/^==/,$d' > "$out/table.md"
  fi
  if [[ $mode == all || $mode == --steps ]]; then
    step steps $((steps_limit + 10)) bash -c steps
  fi
  if [[ $mode == all ]]; then
    step support 60 "$registry" --mode support --json "$out/support.json"
  fi
  if [[ $mode == all || $mode == --sanitize ]]; then
    sanitizer_limit=$(((limit - SECONDS - 10) / 2))
    export sanitizer_limit
    for tool in memcheck racecheck; do
      step $tool $((sanitizer_limit + 5)) bash -c "sanitize $tool"
    done
  fi
fi

# The end of the output is what a caller sees: failures first, then the figures.
grep -E '^FAILED|error:|skipped|op_registry [a-z]+: ' "$log" | head -60
if [[ $mode != --quick ]]; then
  grep -vE 'rc 0' "$out/sanitizer.txt" 2> /dev/null | head -40
  cat "$out/table.md" 2> /dev/null
  sed -n '/^| step/,/^#/p' "$out/steps.md" 2> /dev/null
fi
printf '%s\n' "${summary[@]}"
if ((${#failed[@]} > 0)); then
  tail -25 "$log"
  echo "device_check: FAILED: ${failed[*]}"
  exit 1
fi
echo "device_check: all steps passed in $SECONDS s"
