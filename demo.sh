#!/usr/bin/env bash
# From nothing to masks: an environment, a rendered clip of four cameras, verified engines, a run, a report. All under demo/.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
# shellcheck disable=SC2046 # a name or nothing
need_packages $(venv_package .venv)
make_environment .venv ".[export]"
PATH="$PWD/.venv/bin:$PATH"
rm -rf demo && mkdir demo
echo "1/3 rendering a moving scene, 4 cameras x 8 frames"
page4d clip --T 8 --V 4 --width 320 --height 240 -o demo/clip
echo "2/3 exporting the model 'vits' as engines, each verified against PyTorch"
page4d-export --preset vits --T 4 --V 4 --height 252 --width 336 -o demo/engines
echo "3/3 running the engines over the clip"
page4d-run demo/engines demo/clip -o demo/out
echo
echo "look at  $PWD/demo/out/report.html   frames, masks, where the time went"
echo "         $PWD/demo/out/masks/        the masks over every frame"
echo "         $PWD/demo/engines/          the engines and their manifest"
