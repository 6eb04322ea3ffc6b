#!/usr/bin/env bash
# ./demo.sh: from nothing to masks: an environment, a rendered clip of four cameras, verified engines, a run, a report.
# ./demo.sh --photos [FOLDER]: the same with Depth Anything 3 SMALL, whose weights are downloaded, and your photos.
# All under demo/.
set -euo pipefail
usage() {
    cat <<'TEXT'
usage: ./demo.sh                        masks of a rendered clip, with random weights; needs no download of weights
       ./demo.sh --photos [FOLDER]      points, cameras and depth of photos of one scene, with Depth Anything 3 SMALL;
                                        of more than 8 photos 8 are used; without FOLDER four rendered ones
                 --weights CHECKPOINT   a file, a folder, or owner/name of a repository on the Hugging Face hub;
                                        default: depth-anything/DA3-SMALL
TEXT
}
# refuse MESSAGE: a wrong command ends with exit code 2, as those of page4d do.
refuse() {
    echo "demo.sh: $1" >&2
    usage >&2
    exit 2
}
HUB_ID=depth-anything/DA3-SMALL
mode=clip photos="" weights=$HUB_ID weights_given=""
while [ $# -gt 0 ]; do
    case $1 in
        --photos)
            mode=photos
            if [ $# -gt 1 ] && [[ $2 != --* ]]; then
                [ -d "$2" ] || refuse "there is no such folder of photos: $2"
                photos=$(realpath "$2")
                shift
            fi
            ;;
        --weights)
            [ $# -gt 1 ] || refuse "--weights names a file, a folder or owner/name"
            weights=$2 weights_given=yes
            if [ -e "$2" ]; then weights=$(realpath "$2"); fi
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) refuse "unknown argument: $1" ;;
    esac
    shift
done
[ "$mode" = photos ] || [ -z "$weights_given" ] || refuse "--weights goes with --photos"
cd "$(dirname "$0")"
for input in "$photos" "$weights"; do
    case $input/ in "$(realpath .)/demo/"*) refuse "$input lies in demo/, which is deleted first" ;; esac
done
. scripts/environment.sh
# shellcheck disable=SC2046 # a name or nothing
need_packages $(venv_package .venv)

# environment EXTRAS: page4d with these extras in .venv, and its commands before all others.
environment() {
    [ -x .venv/bin/page4d ] || echo "installing page4d and PyTorch into $PWD/.venv: a few minutes, once"
    make_environment .venv ".[$1]"
    PATH="$PWD/.venv/bin:$PATH"
}

rendered_clip() {
    environment export
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
}

photos_of_one_scene() {
    local code=0 chosen views height width
    environment export,hub,heic
    rm -rf demo && mkdir demo
    if [ -z "$photos" ]; then
        echo "1/3 rendering a scene, 4 cameras"
        page4d clip --T 1 --V 4 --width 640 --height 480 -o demo/photos
        views=4 height=378 width=504
    else
        echo "1/3 choosing photos of $photos"
        chosen=$(python scripts/demo_photos.py "$photos" demo/photos)
        read -r views height width <<<"$chosen"
    fi
    echo "2/3 exporting $weights as engines for $views views of ${width}x$height, each verified against PyTorch"
    page4d-export "$weights" --T 1 --V "$views" --height "$height" --width "$width" -o demo/engines || code=$?
    if [ "$code" != 0 ]; then
        manual_way >&2
        exit "$code"
    fi
    echo "3/3 running the engines over the photos"
    page4d-run demo/engines demo/photos -o demo/out
    echo
    echo "look at  $PWD/demo/out/report.html    photos, depth, cameras, where the time went"
    echo "         $PWD/demo/out/points.ply     the points, in colour"
    echo "         $PWD/demo/out/cameras.json   where each photo was taken, and its focal length"
    echo "         $PWD/demo/out/depth/         depth of each photo, 16 bits"
}

# What to do where the weights could not be had, or not be exported.
manual_way() {
    echo
    echo "demo.sh: no engines were made of $weights; the reason is above"
    [ "$weights" = "$HUB_ID" ] || return 0
    cat <<TEXT
  tried:   page4d-export $HUB_ID, which downloads the weights from the Hugging Face hub unless its cache has them
  by hand: where a network is, download model.safetensors and config.json of https://huggingface.co/$HUB_ID
           into a folder; then  ./demo.sh --photos ${photos:+"'$photos' "}--weights THAT_FOLDER
  or:      ./demo.sh, which needs no weights
TEXT
}

if [ "$mode" = clip ]; then rendered_clip; else photos_of_one_scene; fi
