#!/usr/bin/env bash
# scripts/versions.sh lowest|newest..: page4d with the lowest, or the newest, versions that pyproject.toml allows.
#
# With the Python of the environment (ENVIRONMENT, .venv): export of a tiny model in three precisions, verify, run of frames and of
# videos, doctor. With every other Python from 3.10 to 3.13 that is there: verify, run and doctor, of the same engines and without torch.
# An environment of its own has hub, viewer, bags and rerun, which asks for numpy 2: a download from a hub on loopback, imports, runs.
# torch has one version at both ends; it is the environment's own, by links, since it is too large to be fetched again.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- lowest newest
for end in "$@"; do
    case $end in
        lowest | newest) ;;
        *) echo "page4d: scripts/versions.sh knows no '$end'; lowest, newest" >&2 && exit 2 ;;
    esac
done
environment=$(realpath "${ENVIRONMENT:-.venv}")
own=$environment/bin/python
export PATH="$environment/bin:$PATH" UV_PYTHON_DOWNLOADS=never UV_LINK_MODE="${UV_LINK_MODE:-hardlink}" UV_NO_PROGRESS=1
export OMP_NUM_THREADS=1 # two environments at a time, of a model that is tiny
unset PYTHONPATH
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; wait; rm -rf "$work"' EXIT

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
print(*(line for line in m.requires("torch") if not re.search(r"extra ==|^(nvidia|triton|cuda)", line)), sep="\n")' >"$1/torch-asks"
    uv pip install --quiet --python "$1/bin/python" -r "$1/torch-asks"
}

# try_engines FOLDER ENDS..: with an environment, a verification and a run of every engine folder, doctor, and how a wrong command ends.
try_engines() {
    local folder=$1 bin=$1/bin end engines wrong code
    shift
    "$bin/page4d" doctor >"$folder/doctor"
    if grep 'too old' "$folder/doctor"; then return 1; fi
    for end in "$@"; do
        for engines in "$work/engines-$end"*; do
            "$bin/page4d" verify "$engines" --quiet
            "$bin/page4d" run "$engines" "$work/clip" -o "$folder/out" --quiet
            [ -s "$folder/out/summary.json" ] || return 1
        done
    done
    for wrong in "" "--nonsense" "$engines $work/nothing"; do # a missing argument, an unknown flag, no such frames
        code=0
        # shellcheck disable=SC2086 # several arguments
        "$bin/page4d-run" $wrong >"$folder/messages" 2>&1 || code=$?
        if [ "$code" != 2 ] || grep -q Traceback "$folder/messages"; then
            echo "page4d-run $wrong: exit code $code instead of 2"
            cat "$folder/messages"
            return 1
        fi
    done
}

# run_videos FOLDER ENGINES: the clip's frames as a video per camera.
run_videos() {
    "$1/bin/python" - "$work/clip/frames" "$1/videos/frames" <<'PYTHON'
import pathlib
import sys

import av
import numpy
from PIL import Image

frames, videos = map(pathlib.Path, sys.argv[1:])
videos.mkdir(parents=True)
for camera in frames.iterdir():
    with av.open(str(videos / f"{camera.name}.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 28, 28, "yuv420p"
        for path in sorted(camera.iterdir()):
            picture = av.VideoFrame.from_ndarray(numpy.asarray(Image.open(path).convert("RGB")), format="rgb24")
            video.mux(stream.encode(picture))
        video.mux(stream.encode())
PYTHON
    "$1/bin/page4d" run "$2" "$1/videos" -o "$1/video-out" --quiet
}

# make FOLDER END VERSION PYTHON EXTRA..: an environment with the wheel and what it asks for.
make() {
    local folder=$1 end=$2 python=$4 resolution=highest
    [ "$end" = newest ] || resolution=lowest-direct
    shift 4
    uv venv --quiet --python "$python" "$folder"
    requirements "$@" >"$folder/asks"
    uv pip install --quiet --only-binary :all: --resolution "$resolution" --python "$folder/bin/python" -r "$folder/asks"
    uv pip install --quiet --no-deps --python "$folder/bin/python" "$wheel"
}

# passed FOLDER END: a line for the log, with the versions.
passed() {
    local installed
    installed=$(uv pip freeze --quiet --python "$1/bin/python" | grep -E '^(numpy|onnx|onnxruntime|onnxscript|typer|av|huggingface-hub|viser|rerun-sdk|rosbags)==' | tr '\n' ' ')
    echo "versions: $2, $("$1/bin/python" --version): ${installed}pass after $SECONDS s"
}

# export_with END: the environment's own Python, which exports.
export_with() {
    local end=$1 folder=$work/$1-$mine precision options
    make "$folder" "$end" "$mine" "$own" export video
    link_torch "$folder"
    for precision in "" --bf16 --int8; do
        options=(--preset tiny --T 2 --V 2 --height 28 --width 28 --no-build --quiet)
        [ -n "$precision" ] || options+=(--set global_strategy=dilated) # its graphs ask most of onnxscript
        # shellcheck disable=SC2086 # no argument for float32
        "$folder/bin/page4d" export "${options[@]}" $precision -o "$work/engines-$end$precision"
    done
    run_videos "$folder" "$work/engines-$end"
    try_engines "$folder" "$end"
    passed "$folder" "$end"
}

# extras_with END: the extras that change nothing of the export.
extras_with() {
    local end=$1 folder=$work/$1-extras
    make "$folder" "$end" "$mine" "$own" hub viewer bags rerun
    HF_HOME=$folder/hub HF_TOKEN='' "$folder/bin/python" -I - "$PWD" <<'PYTHON'
import os
import sys

sys.path.append(sys.argv[1])  # last: page4d is the wheel's
from tests.support.hub.hub_server import serving

with serving() as server:
    os.environ["HF_ENDPOINT"] = server.endpoint
    server.add("owner/name", {"model.safetensors": bytes(1 << 20), "config.json": b"{}"}, cut_at=1 << 19, cuts=1)
    from page4d.checkpoints.hub.download import download
    from page4d.checkpoints.hub.hub_id import HubId

    assert download(HubId("owner/name")).path.stat().st_size == 1 << 20
import rerun
import rosbags.highlevel
import viser
PYTHON
    try_engines "$folder" "$end"
    passed "$folder" "$end, extras"
}

# run_with END VERSION PYTHON ENDS..: another Python without torch; engines of both ends run, whatever exported them.
run_with() {
    local folder=$work/$1-$2 end=$1 version=$2 python=$3
    shift 3
    make "$folder" "$end" "$version" "$python"
    try_engines "$folder" "$@"
    passed "$folder" "$end"
}

# beside COMMAND..: in the background, two at a time; its output comes when it ends, and a failure ends this script.
beside() {
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    (
        log=$(mktemp -p "$work")
        set +e # behind || a function would run on after a line that fails
        (
            set -e
            "$@"
        ) >"$log" 2>&1
        code=$?
        [ "$code" = 0 ] || echo "versions: $* failed:"
        cat "$log"
        exit "$code"
    ) &
    all+=($!)
}

# finish: waits for all that was begun.
finish() {
    local job
    for job in "${all[@]}"; do wait "$job"; done
    all=()
}

all=()
mkdir "$work/source" # setuptools leaves a build/ behind, and takes from it what is no longer there
cp -r pyproject.toml README.md LICENSE NOTICE page4d export plugins engines "$work/source"
uv build --quiet --wheel --python "$own" --out-dir "$work/wheel" "$work/source"
wheel=$(echo "$work"/wheel/*.whl)
mine=$("$own" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
page4d clip --T 3 --V 2 --width 28 --height 28 -o "$work/clip" 2>/dev/null
for end in "$@"; do beside export_with "$end"; done
finish
for end in "$@"; do beside extras_with "$end"; done
for end in "$@"; do
    for version in 3.10 3.11 3.12 3.13; do
        [ "$version" != "$mine" ] || continue
        if python=$(python_of "$version"); then
            beside run_with "$end" "$version" "$python" "$@"
        else
            echo "versions: $end, Python $version: skipped, there is no such Python"
        fi
    done
done
finish
