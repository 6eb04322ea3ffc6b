#!/usr/bin/env bash
# test.sh [--all|--long] [ARGUMENT..]: sets up an environment in .venv and runs every check: style, types, tests.
#   --all   and then what takes long: the tests marked slow, every example of hypothesis, the lowest and the newest versions
#   --long  that alone
# Arguments are pytest's; the versions are then left out.
# PyTorch's build for CUDA and the kernels' Triton exclude each other: pip must find the CPU build (CONTRIBUTING.md).
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
parts=fast
case ${1:-} in --all | --long) parts=${1#--} && shift ;; esac
# shellcheck disable=SC2046,SC2086 # names, one a word
need_packages $(venv_package .venv) $TEST_PACKAGES
make_environment .venv --constraint constraints.txt --editable ".[$TEST_EXTRAS]"
export PATH="$PWD/.venv/bin:$PATH" # cmake
unset PYTHONDONTWRITEBYTECODE # some hundred processes import torch: it is compiled once, not by each of them
# two at a time: most of the time is one thread that traces small graphs
tests=(.venv/bin/python -m pytest -n 2 --dist worksteal --durations=20)
if [ "$parts" != long ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    git ls-files '*.c' '*.cpp' '*.cu' '*.h' | xargs .venv/bin/clang-format --dry-run -Werror
    .venv/bin/mypy & types=$!
    "${tests[@]}" "$@"
    wait "$types"
fi
if [ "$parts" != fast ]; then
    [ $# -gt 0 ] || scripts/versions.sh lowest newest
    "${tests[@]}" -m "slow or hypothesis" --hypothesis-profile=full "$@"
fi
