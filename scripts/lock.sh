#!/usr/bin/env bash
# Writes constraints.txt: one version of every package that test.sh installs, for Python 3.10 to 3.13 on Linux.
# Run it after a change of pyproject.toml's requirements: versions that still fit stay.
# scripts/lock.sh --upgrade takes the newest of all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
PATH="$PWD/.venv/bin:$PATH" # uv, where test.sh installed it
root=$PWD work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp pyproject.toml "$work"
# torch with the requirements of its CPU build: the CUDA build asks for CUDA's libraries, and for another Triton than
# the kernels are made with
cat >>"$work/pyproject.toml" <<'TOML'

[tool.uv]
environments = ["sys_platform == 'linux' and python_version < '3.14'"]

[[tool.uv.dependency-metadata]]
name = "torch"
requires-dist = [
    "filelock", "typing-extensions>=4.10", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2",
    "fsspec>=0.8.5",
]
TOML
extras=()
for extra in ${TEST_EXTRAS//,/ }; do extras+=(--extra "$extra"); done
cd "$work"
export UV_PYTHON_DOWNLOADS=never
uv pip compile --quiet --universal --python-version 3.10 "${extras[@]}" --custom-compile-command scripts/lock.sh "$@" \
    --no-annotate --no-emit-index-url --no-emit-find-links \
    --output-file "$root/constraints.txt" pyproject.toml >/dev/null
