"""The C++ runtime refuses what Python's refuses, with the same code and the same first line."""

import json
import shutil

import numpy as np
import pytest

from page4d.errors import Page4DError
from page4d_engines import Pipeline
from page4d_engines.clip.fit import Fit
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.ort import cpu_engine
from tests.support.cpp.parity_runs import Checksums, clip_of, cpp_run, keypoints_for, write_raw


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


def refused_alike(parity, engines, clip, call, **info):
    """Both refuse: C++ to run the clip, Python the call."""
    folder = clip.parent
    info = {"starts": [0], "fit": "none", "sliding": False, "backend": "test"} | info
    write_raw(folder / "raw", FrameFolder.open(clip), info)
    completed = cpp_run(parity, engines, folder / "raw", folder / "out")
    with pytest.raises(Page4DError) as caught:
        call()
    assert completed.stderr.splitlines()[0] == f"page4d: {caught.value.what}"
    assert completed.returncode == caught.value.exit_code and completed.stdout == ""
    assert not list((folder / "out").iterdir())


@pytest.fixture
def clip(tmp_path):
    return clip_of(tmp_path / "clip", 3, 2, 100, 80)


def run_of(engines, **inputs):
    """A call of Python's runtime with black images."""
    pipeline = Pipeline.load(engines, "onnxruntime")
    return lambda: pipeline.run(np.zeros(pipeline.manifest.layout.images_shape, np.uint8), **inputs)


def test_frames_of_another_aspect_ratio(parity, made, tmp_path):
    wide = clip_of(tmp_path / "wide", 3, 2, 111, 52)
    layout = made("default").plan.layout
    refused_alike(parity, made("default").folder, wide, lambda: Fit.choose((111, 52), layout, None))


def test_no_keypoint_maps_where_the_engines_read_them(parity, made, clip):
    refused_alike(parity, made("late").folder, clip, run_of(made("late").folder))


def test_keypoint_maps_where_the_engines_read_none(parity, made, clip):
    keypoints_for(clip)
    refused_alike(parity, made("default").folder, clip, run_of(made("default").folder, keypoints=0.5))


def test_masks_where_the_engines_read_none(parity, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 1, 3, 70, 56)
    refused_alike(parity, made("pi3").folder, clip, run_of(made("pi3").folder, mask_ext=0.5))


@pytest.mark.parametrize("cameras", [0, 1])
def test_cameras_missing(parity, made, clip, cameras):
    """None, or fewer than the engines have views."""
    known = list(made("memory").inputs(keypoints=False)["cameras"].items())[:cameras]
    call = run_of(made("memory").folder, keypoints=0.5, cameras=dict(known) or None)
    refused_alike(parity, made("memory").folder, clip, call, cameras=[camera for _, camera in known])


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
def test_spoiled_engines(parity, made, clip, tmp_path, case):
    engines = tmp_path / "engines"
    shutil.copytree(made("default").folder, engines)
    ENGINES[case](engines)
    refused_alike(parity, engines, clip, lambda: Pipeline.load(engines, "onnxruntime"))
