#!/usr/bin/env bash
# Everything that needs a GPU, in under 8 minutes on an H100: tests, benchmark, a sweep of tiles. Nothing is fetched.
#   PYTHON  an interpreter with PyTorch for CUDA, Triton and the modules below (default python3)
#   WHEELS  a folder of wheels for modules that it lacks
#   OUT     where logs and JSON go (default build/gpu)
#   LIMIT   seconds for all of it (default 470)
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} out=${OUT:-build/gpu} limit=${LIMIT:-470}
modules=(torch triton numpy msgspec safetensors PIL typer rich onnx onnxruntime onnxscript pytest hypothesis cuda.core cuda.bindings)
mkdir -p "$out"
out=$(cd "$out" && pwd) log=$out/log.txt
: >"$log"
rm -f "$out"/bench-*.json "$out"/sweep-*.json
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
# step NAME SECONDS COMMAND..: runs it within its seconds and the time that is left; what it says goes to the log.
step() {
    local name=$1 seconds=$2 left=$((limit - SECONDS)) started=$SECONDS code=0
    shift 2
    if [ "$left" -lt 10 ]; then
        failed+=("$name: no time left")
        return
    fi
    printf '\n==== %s: %s\n' "$name" "$*" >>"$log"
    timeout --kill-after=5 $((seconds < left ? seconds : left)) "$@" >"$scratch/said" 2>&1 || code=$?
    cat "$scratch/said" >>"$log"
    printf '%-28s %4d s  %s\n' "$name" $((SECONDS - started)) "$([ $code = 0 ] && echo ok || echo "exit $code")"
    [ $code = 0 ] || failed+=("$name: exit $code$([ $code = 124 ] && echo ' (out of time)')")
}

# bench NAME SECONDS OPTION..: one run of the benchmark; its JSON goes to NAME.json, its words to the log.
bench() {
    local name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" bash -c 'file=$1; shift; exec "$@" >"$file"' - "$out/$name.json" \
        "$python" -c 'from page4d_export.main import main; main()' bench attention --device cuda --json --quiet "$@"
}

# Says the card and the versions, and that nothing of the card is changed: it only asks.
info() {
    nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu --format=csv || true
    "$python" -c 'from page4d_plugins.bench.compare import describe, versions; print(describe("cuda"), versions())'
}
export -f info
export python

step info 60 bash -c info
cat "$scratch/said"
# side by side, since most of the time is Triton compiling; but not what watches the GPU's free memory
parallel=$("$python" -c 'import xdist; print("-n", 4)' 2>/dev/null)
# Only files that have such tests: others may want modules that are not here. Warnings are those of this machine's versions.
mapfile -t files < <(grep -l 'mark\.gpu' tests/plugins/*.py)
tests=("$python" -m pytest -m gpu "${files[@]}" -p no:cacheprovider -o filterwarnings=default -rsf --durations=10)
# shellcheck disable=SC2086
step "tests" 200 "${tests[@]}" $parallel -k "not allocates"
grep -E '^(FAILED|ERROR|SKIPPED|[0-9]+ (passed|failed|skipped|error))|^=+ .*(passed|failed|skipped|error)' "$scratch/said" | tail -30
grep -q ' passed' "$scratch/said" || failed+=("tests: none passed")
step "tests of allocation" 60 "${tests[@]}" -k allocates
for keys in 5496 32976; do
    bench "bench-$keys-fp16" 90 --keys $keys --rounds 9
    bench "bench-$keys-bf16" 90 --keys $keys --rounds 9 --bf16
done
tiles=$((limit - SECONDS - 60)) # the rest of its time it starts, checks what was begun, and times
tiles=$((tiles < 20 ? 20 : tiles > 90 ? 90 : tiles))
bench sweep-biased-fp16 150 --keys 5496 --rounds 5 --sweep biased --sweep-seconds $tiles
step "info after" 20 bash -c info

{
    "$python" -m page4d_plugins.bench.table "$out"/bench-*.json "$out"/sweep-*.json
    echo "$SECONDS s; logs and JSON in $out"
    if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED %s\n' "${failed[@]}"; else echo "all steps ok"; fi
} 2>&1 | tee "$out/summary.txt"
[ ${#failed[@]} = 0 ]
