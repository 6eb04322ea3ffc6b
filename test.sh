#!/usr/bin/env bash
# Sets up an environment in .venv and runs every check: style, types, tests, and the lowest and newest versions of what is asked for.
# Arguments are pytest's; the versions are then left out.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
make_environment .venv # which may want a package itself
# C++: compilers for x86-64 and ARM, headers, libpng of an example, ccache for the second run
need_packages g++ g++-aarch64-linux-gnu nlohmann-json3-dev libeigen3-dev libpng-dev ccache & packages=$!
make_environment .venv --editable ".[export,kernels,gpu,rtx,ray,video,heic,test]"
wait "$packages"
export PATH="$PWD/.venv/bin:$PATH" # cmake
unset PYTHONDONTWRITEBYTECODE # some hundred processes import torch: it is compiled once, not by each of them
.venv/bin/ruff check .
.venv/bin/ruff format --check .
git ls-files '*.c' '*.cpp' '*.cu' '*.h' | xargs .venv/bin/clang-format --dry-run -Werror
.venv/bin/mypy & types=$!
# two at a time, a file each: most of the time is one thread tracing small graphs
.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
wait "$types"
[ $# -gt 0 ] || scripts/versions.sh lowest newest
