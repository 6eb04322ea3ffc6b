#!/usr/bin/env bash
# Sets up an environment in .venv and runs every check: style, types, tests.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
make_environment .venv --editable ".[export,test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
