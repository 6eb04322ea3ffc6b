#!/usr/bin/env bash
# Sets up an environment in .venv and runs every check: style, types, tests, and the lowest and newest versions of what is asked for.
# Arguments are pytest's; the versions are then left out.
# PyTorch's build for CUDA and the kernels' Triton exclude each other: pip must find the CPU build (CONTRIBUTING.md).
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
# shellcheck disable=SC2046,SC2086 # names, one a word
need_packages $(venv_package .venv) $TEST_PACKAGES
make_environment .venv --constraint constraints.txt --editable ".[$TEST_EXTRAS]"
export PATH="$PWD/.venv/bin:$PATH" # cmake
unset PYTHONDONTWRITEBYTECODE # some hundred processes import torch: it is compiled once, not by each of them
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy & types=$!
# two at a time, a file each: most of the time is one thread tracing small graphs
.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
wait "$types"
[ $# -gt 0 ] || scripts/versions.sh lowest newest
