"""The C++ example `offline` refuses what page4d-run refuses, in the same words and with the same code."""

import json
import shutil
import subprocess

import pytest
from PIL import Image

from page4d_engines.ort import cpu_engine
from tests.support.offline_runs import Checksums, clip_of, encoded, keypoints_for, refused_alike


@pytest.fixture(scope="session")
def offline_binary(cpp):
    return cpp / "examples" / "offline" / "offline"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


def entry(change):
    """A case that changes camera cam1 of cameras.json."""

    def spoil(clip):
        content = json.loads((clip / "cameras.json").read_text())
        change(content["cam1"])
        (clip / "cameras.json").write_text(json.dumps(content))

    return spoil


def cut(name, keep):
    """A case that cuts a file short, or puts other bytes in its place."""

    def spoil(clip):
        content = (clip / name).read_bytes()
        (clip / name).write_bytes(keep if isinstance(keep, bytes) else content[: int(len(content) * keep)])

    return spoil


def jpeg_cut(share):
    def spoil(clip):
        path = clip / "frames" / "cam1" / "000002.png"
        content = encoded(Image.open(path), "JPEG")
        path.with_suffix(".jpg").write_bytes(content[: int(len(content) * share)])
        path.unlink()

    return spoil


def gap(clip):
    (clip / "frames" / "cam1" / "000001.png").unlink()


def two_gaps(clip):
    gap(clip)
    (clip / "frames" / "cam0" / "000002.png").unlink()


def other_names(clip):
    for file in (clip / "frames" / "cam1").iterdir():
        file.rename(file.with_name(f"right_{file.name}"))


def third(clip):
    shutil.copytree(clip / "frames" / "cam1", clip / "frames" / "cam10")
    shutil.copytree(clip / "masks" / "cam1", clip / "masks" / "cam10")
    content = json.loads((clip / "cameras.json").read_text())
    (clip / "cameras.json").write_text(json.dumps(content | {"cam10": content["cam1"]}))


def size(name):
    return lambda clip: Image.new("L" if name.startswith("masks") else "RGB", (9, 8)).save(clip / name)


SPOILED = {
    "no folder": shutil.rmtree,
    "an empty camera": lambda clip: (clip / "frames" / "cam2").mkdir(),
    "a gap": gap,
    "two gaps": two_gaps,
    "a gap and other names": lambda clip: (gap(clip), other_names(clip)),
    "other names": other_names,
    "a frame twice": lambda clip: shutil.copy(clip / "frames/cam1/000002.png", clip / "frames/cam1/000002.jpeg"),
    "a frame of another size": lambda clip: (
        size("frames/cam1/000001.png")(clip),
        shutil.rmtree(clip / "masks"),
        (clip / "cameras.json").unlink(),
    ),
    "a mask of another size": size("masks/cam1/000001.png"),
    "no frame": cut("frames/cam0/000001.png", b""),
    "a text": cut("frames/cam0/000001.png", b"hello"),
    "a folder for a frame": lambda clip: (
        (clip / "frames/cam0/000001.png").unlink(),
        (clip / "frames/cam0/000001.png").mkdir(),
    ),
    "half a frame": cut("frames/cam1/000002.png", 0.5),
    "half a jpeg": jpeg_cut(0.5),
    "most of a jpeg": jpeg_cut(0.95),
    "no mask": lambda clip: (clip / "masks" / "cam1" / "000001.png").unlink(),
    "no masks of a camera": lambda clip: shutil.rmtree(clip / "masks" / "cam1"),
    "too few times": lambda clip: [
        file.unlink() for kind in ("frames", "masks") for file in (clip / kind).rglob("00000[12].png")
    ],
    "three cameras": third,
    "a list for cameras": cut("cameras.json", b"[1, 2]"),
    "no such camera": cut("cameras.json", b"{}"),
    "a key missing": entry(lambda camera: camera.pop("K")),
    "no matrix": entry(lambda camera: camera.update(K="none")),
    "a matrix of another shape": entry(lambda camera: camera.update(K=[[1.5, 0, 1e-5], [0, 1e20, 2]])),
    "a mirror": entry(lambda camera: camera.update(world_to_camera=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0.25]])),
    "no focal length": entry(lambda camera: camera["K"][0].__setitem__(0, -3.25)),
    "a camera of another size": entry(lambda camera: camera.update(width=101)),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_clips_are_refused_in_the_same_words(offline_binary, made, tmp_path, case):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    SPOILED[case](clip)
    refused_alike(offline_binary, made("default").folder, clip, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("clip",)]


@pytest.mark.parametrize(
    "options",
    [{"stride": 4}, {"stride": 0}, {"masks": "nowhere"}, {"keypoints": __file__}, {"cameras": "nowhere.json"}],
    ids=lambda options: str(list(options)),
)
def test_options_are_refused_in_the_same_words(offline_binary, made, tmp_path, options):
    refused_alike(
        offline_binary, made("default").folder, clip_of(tmp_path / "clip", 3, 2, 100, 80), tmp_path / "out", **options
    )


def test_what_the_engines_need(offline_binary, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    refused_alike(offline_binary, made("memory").folder, clip, tmp_path / "out")
    keypoints_for(clip)
    (clip / "cameras.json").unlink()
    refused_alike(offline_binary, made("memory").folder, clip, tmp_path / "out")
    refused_alike(offline_binary, tmp_path, clip, tmp_path / "out")
    wide = clip_of(tmp_path / "wide", 3, 2, 111, 52)
    refused_alike(offline_binary, made("default").folder, wide, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fit", "shrink"], "--fit has no such value\n  got:     shrink\n  allowed: stretch, crop, pad"),
        (["--backend", "cpu"], "--backend has no such value\n  got:     cpu\n  allowed: tensorrt, test"),
        (["--min-confidence", "2"], "--min-confidence is out of range\n  got:     2.0\n  allowed: 0 to 1"),
        (["--stride", "two"], "--stride is no number\n  got:     two\n  allowed: a whole number"),
        (["--stride"], "--stride needs a value\n  try:     offline --help"),
        (["--quick"], "there is no such option\n  got:     --quick\n  try:     offline --help"),
    ],
)
def test_arguments(offline_binary, tmp_path, arguments, words):
    done = subprocess.run(
        [str(offline_binary), "engines", "clip", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stderr, done.stdout) == (2, f"page4d: {words}\n", "")


def test_help(offline_binary):
    done = subprocess.run([str(offline_binary), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("Usage: offline ENGINES FRAMES") and done.stderr == ""


# ---- engine folders


def of_manifest(change):
    def spoil(engines):
        content = json.loads((engines / "manifest.json").read_text())
        change(content)
        (engines / "manifest.json").write_text(json.dumps(content))

    return spoil


def flipped(engines):
    content = bytearray((engines / "onnx" / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (engines / "onnx" / "encoder.onnx").write_bytes(content)


ENGINES = {
    "no folder": shutil.rmtree,
    "no manifest": lambda engines: (engines / "manifest.json").unlink(),
    "half a manifest": of_manifest(lambda manifest: manifest.pop("stages")),
    "another format": of_manifest(lambda manifest: manifest.update(format=2)),
    "another layout": of_manifest(lambda manifest: manifest["layout"].update(T=9)),
    "a number for a name": of_manifest(lambda manifest: manifest["stages"][2].update(name=3)),
    "a file outside": of_manifest(lambda manifest: manifest["files"].update({"../x": "0"})),
    "a file that is not listed": of_manifest(lambda manifest: manifest["files"].pop("onnx/encoder.onnx")),
    "a file missing": lambda engines: (engines / "onnx" / "encoder.onnx").unlink(),
    "a bit flipped": flipped,
    "a file cut short": lambda engines: (engines / "onnx" / "encoder.onnx").write_bytes(b""),
}


@pytest.mark.parametrize("case", ENGINES)
def test_spoiled_engines_are_refused_in_the_same_words(offline_binary, made, tmp_path, case):
    engines = tmp_path / "engines"
    shutil.copytree(made("default").folder, engines)
    ENGINES[case](engines)
    refused_alike(offline_binary, engines, clip_of(tmp_path / "clip", 3, 2, 100, 80), tmp_path / "out")
    assert not (tmp_path / "out").exists()
