#!/usr/bin/env bash
# scripts/versions.sh lowest|newest..: page4d with the lowest, or the newest, versions that pyproject.toml allows.
#
# With the Python of the environment (ENVIRONMENT, .venv): export of a tiny model in three precisions, verify, run and doctor. With
# every other Python from 3.10 to 3.13 that is there: verify, run and doctor, of the same engines and without torch. torch has one version
# at both ends; it is the environment's own, by links, since it is too large to be fetched again.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- lowest newest
environment=$(realpath "${ENVIRONMENT:-.venv}")
own=$environment/bin/python
export PATH="$environment/bin:$PATH" UV_PYTHON_DOWNLOADS=never UV_LINK_MODE="${UV_LINK_MODE:-hardlink}" UV_NO_PROGRESS=1
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# python_of VERSION: the path of an interpreter; pyenv's names on PATH are there without one behind them.
python_of() {
    local candidate
    for candidate in "$own" "$(command -v "python$1" || true)" "$(pyenv root 2>/dev/null || true)"/versions/"$1".*/bin/python; do
        if [ -x "$candidate" ] && [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# requirements EXTRA..: of pyproject.toml, but for torch.
requirements() {
    "$own" - "$@" <<'PYTHON'
import sys
try:
    import tomllib
except ImportError:
    import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
lines = [*project["dependencies"], *(line for extra in sys.argv[1:] for line in project["optional-dependencies"][extra])]
print("\n".join(line for line in lines if not line.startswith("torch")))
PYTHON
}

# link_torch FOLDER: the environment's torch, and what it asks for, in another environment of the same Python.
link_torch() {
    local site target name
    site=$("$own" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])')
    target=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for name in torch torchgen functorch nvidia; do
        [ ! -e "$site/$name" ] || [ -e "$target/$name" ] || ln -s "$site/$name" "$target/$name"
    done
    ln -s "$site"/torch-*.dist-info "$target"
    "$own" -c 'import importlib.metadata as m, re
print(*(line for line in m.requires("torch") if not re.search(r"extra ==|^(nvidia|triton|cuda)", line)), sep="\n")' >"$work/torch-asks"
    uv pip install --quiet --python "$1/bin/python" -r "$work/torch-asks"
}

# try_engines FOLDER: doctor, a verification and a run of every engine folder, and how the command line ends.
try_engines() {
    local bin=$1/bin engines code
    "$bin/page4d" doctor >"$work/doctor"
    ! grep -E 'too old|newer than' "$work/doctor" || true
    for engines in "$work"/engines-*; do
        "$bin/page4d" verify "$engines" --quiet
        rm -rf "$work/out"
        "$bin/page4d" run "$engines" "$work/clip" -o "$work/out" --quiet
        [ -s "$work/out/summary.json" ]
    done
    for wrong in "" "--nonsense" "$engines $work/nothing"; do # a missing argument, an unknown flag, no such frames
        code=0
        # shellcheck disable=SC2086 # words
        "$bin/page4d-run" $wrong >"$work/words" 2>&1 || code=$?
        if [ "$code" != 2 ] || grep -q Traceback "$work/words"; then
            echo "page4d-run $wrong: exit code $code instead of 2"
            cat "$work/words"
            return 1
        fi
    done >&2
}

mkdir "$work/source" # setuptools leaves a build/ behind, and takes from it what is no longer there
cp -r pyproject.toml README.md page4d export plugins engines "$work/source"
uv build --quiet --wheel --python "$own" --out-dir "$work/wheel" "$work/source"
wheel=$(echo "$work"/wheel/*.whl)
mine=$("$own" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for end in "$@"; do
    case $end in
        lowest) resolution=lowest-direct ;;
        newest) resolution=highest ;;
        *) echo "page4d: scripts/versions.sh knows no '$end'; lowest, newest" >&2 && exit 2 ;;
    esac
    for version in "$mine" 3.10 3.11 3.12 3.13; do
        [ ! -e "$work/$end-$version" ] || continue
        if ! python=$(python_of "$version"); then
            echo "versions: $end, Python $version: skipped, there is no such Python"
            continue
        fi
        folder=$work/$end-$version
        uv venv --quiet --python "$python" "$folder"
        extras=(video gpu)
        [ "$version" != "$mine" ] || extras+=(export)
        requirements "${extras[@]}" >"$work/asks"
        uv pip install --quiet --only-binary :all: --resolution "$resolution" --python "$folder/bin/python" -r "$work/asks"
        uv pip install --quiet --no-deps --python "$folder/bin/python" "$wheel"
        if [ "$version" = "$mine" ]; then
            link_torch "$folder"
            [ -e "$work/clip" ] || "$folder/bin/page4d" clip --T 3 --V 2 --width 28 --height 28 -o "$work/clip" 2>/dev/null
            for precision in "" --bf16 --int8; do
                "$folder/bin/page4d" export --preset tiny --T 2 --V 2 --height 28 --width 28 $precision --no-build --quiet -o "$work/engines-$end$precision"
            done
        fi
        try_engines "$folder" # the newest's run on every Python, and the lowest's, whatever exported them
        installed=$(uv pip freeze --quiet --python "$folder/bin/python" | grep -E '^(numpy|onnx|onnxruntime|onnxscript|typer)==' | tr '\n' ' ')
        echo "versions: $end, $("$python" --version): ${installed}pass after $SECONDS s"
    done
done
