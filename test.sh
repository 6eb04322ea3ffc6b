#!/usr/bin/env bash
# test.sh [--all|--long] [ARGUMENT..]: sets up an environment in .venv and runs every check: style, types, tests.
#   --all   and then what takes long: the tests marked slow, every example of hypothesis, the lowest and the newest versions
#   --long  that alone
# Arguments are pytest's; the versions are then left out.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
parts=fast
case ${1:-} in --all | --long) parts=${1#--} && shift ;; esac
make_environment .venv # which may want a package itself
# the C++ runtime: a compiler and another processor's, what it is made with, what its examples read images with
need_packages g++ g++-aarch64-linux-gnu nlohmann-json3-dev libeigen3-dev libpng-dev libjpeg-dev & packages=$!
make_environment .venv --editable ".[export,kernels,gpu,rtx,ray,video,heic,test]"
wait "$packages"
export PATH="$PWD/.venv/bin:$PATH" # cmake
unset PYTHONDONTWRITEBYTECODE # some hundred processes import torch: it is compiled once, not by each of them
# two at a time: most of the time is one thread that traces small graphs
tests=(.venv/bin/python -m pytest -n 2 --dist worksteal --durations=20)
if [ "$parts" != long ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy & types=$!
    "${tests[@]}" "$@"
    wait "$types"
fi
if [ "$parts" != fast ]; then
    "${tests[@]}" -m "slow or hypothesis" --hypothesis-profile=full "$@"
    [ $# -gt 0 ] || scripts/versions.sh lowest newest
fi
