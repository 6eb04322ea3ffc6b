#!/usr/bin/env bash
# Everything that needs a GPU: gpu.sh kernels (tests, benchmark, a sweep of tiles of the attention kernels; under 8 minutes on an H100),
# gpu.sh engines (what TensorRT does on this GPU, the engines' tests, the chain against PyTorch), gpu.sh vggt (VGGT at T = 8, 20, 50,
# 100 of 350 x 518 against PyTorch, each head apart). Nothing is fetched.
#   PYTHON  an interpreter with PyTorch for CUDA, Triton and the modules below (default python3)
#   WHEELS  a folder of wheels for modules that it lacks
#   OUT     where logs and JSON go (default build/gpu)
#   LIMIT   seconds for all of it (default 470)
#   TensorRT_ROOT  TensorRT's headers, for the C++ runtime's tests (with CMake, nlohmann-json and Eigen); without it they are skipped
set -uo pipefail
cd "$(dirname "$0")/.."
part=${1:-kernels}
case $part in kernels | engines | vggt) ;; *) echo "usage: gpu.sh [kernels|engines|vggt]" && exit 2 ;; esac
python=${PYTHON:-python3} out=${OUT:-build/gpu} limit=${LIMIT:-470}
modules=(torch triton numpy ml_dtypes msgspec safetensors psutil PIL jinja2 typer rich onnx onnxruntime onnxscript pytest hypothesis cuda.core cuda.bindings)
mkdir -p "$out"
out=$(cd "$out" && pwd) log=$out/log.txt
: >"$log"
rm -f "$out"/bench-*.json "$out"/sweep-*.json "$out"/chain-*.json
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH="$PWD:$PWD/export:$PWD/plugins:$PWD/engines${PYTHONPATH:+:$PYTHONPATH}" TRITON_INTERPRET=0 PYTHONUNBUFFERED=1
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" "$WHEELS"/*.whl >>"$log" 2>&1 || echo "wheels of $WHEELS: not installed, see $log"
    PYTHONPATH=$PYTHONPATH:$scratch/site
fi

missing=$("$python" - "${modules[@]}" <<'PYTHON'
import importlib, sys

def lacking(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return True

print(*filter(lacking, sys.argv[1:]))
PYTHON
) || exit 2
if [ -n "$missing" ]; then
    echo "$python lacks: $missing; name a folder with their wheels in WHEELS, or another interpreter in PYTHON" | tee -a "$log"
    exit 2
fi

failed=()
# step NAME SECONDS COMMAND..: runs it within its seconds and the time that is left; its output goes to the log.
step() {
    local name=$1 seconds=$2 left=$((limit - SECONDS)) started=$SECONDS code=0
    shift 2
    if [ "$left" -lt 10 ]; then
        failed+=("$name: no time left")
        return
    fi
    printf '\n==== %s: %s\n' "$name" "$*" >>"$log"
    timeout --kill-after=5 $((seconds < left ? seconds : left)) "$@" >"$scratch/output" 2>&1 || code=$?
    cat "$scratch/output" >>"$log"
    printf '%-28s %4d s  %s\n' "$name" $((SECONDS - started)) "$([ $code = 0 ] && echo ok || echo "exit $code")"
    [ $code = 0 ] || failed+=("$name: exit $code$([ $code = 124 ] && echo ' (out of time)')")
}

# document NAME SECONDS ARGUMENT..: one `page4d` command; the JSON on its stdout goes to NAME.json, its messages to the log.
document() {
    local name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" bash -c 'file=$1; shift; exec "$@" >"$file"' - "$out/$name.json" "$python" -c 'from page4d_export.main import main; main()' "$@"
}

# info: the GPU and the versions. It only reads: nothing of the GPU is changed.
info() {
    nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu --format=csv || true
    "$python" -c 'from page4d_plugins.bench.compare import describe, versions; print(describe("cuda"), versions())'
}
export -f info
export python

step info 60 bash -c info
cat "$scratch/output"
# Only files that have such tests: others may want modules that are not here. Warnings are those of this machine's versions.
gather() { mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' "tests/$1"); }
tests=("$python" -m pytest -m gpu -p no:cacheprovider -o filterwarnings=default -rsf --durations=10)
results() {
    grep -E '^(FAILED|ERROR|SKIPPED|[0-9]+ (passed|failed|skipped|error))|^=+ .*(passed|failed|skipped|error)' "$scratch/output" | tail -30
    grep -q ' passed' "$scratch/output" || failed+=("$1: none passed")
}

kernels() {
    # side by side, since most of the time is Triton compiling; but not what watches the GPU's free memory
    local parallel tiles
    parallel=$("$python" -c 'import xdist; print("-n", 4)' 2>/dev/null)
    gather plugins
    # shellcheck disable=SC2086
    step "tests" 200 "${tests[@]}" "${files[@]}" $parallel -k "not allocates"
    results tests
    step "tests of allocation" 60 "${tests[@]}" "${files[@]}" -k allocates
    for keys in 5496 32976; do
        document "bench-$keys-fp16" 90 bench attention --device cuda --json --quiet --keys $keys --rounds 9
        document "bench-$keys-bf16" 90 bench attention --device cuda --json --quiet --keys $keys --rounds 9 --bf16
    done
    tiles=$((limit - SECONDS - 60)) # the rest of its time it starts, checks what was begun, and times
    tiles=$((tiles < 20 ? 20 : tiles > 90 ? 90 : tiles))
    document sweep-biased-fp16 150 bench sweep biased --json --quiet --keys 5496 --rounds 5 --seconds $tiles
}

engines() {
    document doctor 60 doctor --json
    cat "$out/doctor.json"
    gather engines
    step "tests of engines" 240 "${tests[@]}" "${files[@]}"
    results "tests of engines"
    for precision in "" --bf16 --fp8; do
        # shellcheck disable=SC2086
        document "chain-8x4${precision:---fp16}" 200 bench chain --device cuda --preset vitl --T 8 --V 4 --height 518 --width 518 --rounds 7 --json --quiet $precision
    done
    document chain-24x4--fp16 280 bench chain --device cuda --preset vitl --T 24 --V 4 --height 518 --width 518 --rounds 3 --json --quiet
}

vggt() {
    local frames
    for frames in 8 20 50 100; do
        document "chain-vggt-$frames" 300 bench chain --device cuda --preset vggt --T $frames --V 1 --height 350 --width 518 --rounds 5 --json --quiet
    done
}

$part
step "info after" 20 bash -c info

{
    shopt -s nullglob
    "$python" -m page4d_export.bench.gpu_tables "$out"/bench-*.json "$out"/sweep-*.json "$out"/chain-*.json
    echo "$SECONDS s; logs and JSON in $out"
    if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED %s\n' "${failed[@]}"; else echo "all steps ok"; fi
} 2>&1 | tee "$out/summary.txt"
[ ${#failed[@]} = 0 ]
