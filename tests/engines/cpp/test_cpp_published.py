"""Depth Anything 3 and Pi3X in both runtimes: what the host computes between and after the stages."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.ort import cpu_engine
from page4d_engines.pipeline import Pipeline
from page4d_engines.runtime.constants import shape_of
from tests.support.cpp.parity_runs import Checksums, clip_of, cpp_run, same_runs, same_tensor, write_raw
from tests.vectors.published_manifests import H, W, da3, mono, pi3x


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


def engines_of(folder, manifest):
    """An engine folder of a manifest, with files in place of engines, and constants."""
    (folder / "onnx").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    read = read_manifest(folder)
    for name in manifest["files"]:
        (folder / name).write_bytes(name.encode())
    if constants := {name: shape_of(read, name) for name in read.constants}:
        values = {name: np.arange(np.prod(shape)).reshape(shape) % 251 / 128 for name, shape in constants.items()}
        save_file(
            {name: value.astype(np.float32) for name, value in values.items()}, folder / "onnx/constants.safetensors"
        )
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": hashes}))
    return folder


@pytest.mark.parametrize(
    ("manifest", "size", "names"),
    [
        (da3(), (1, 4), {"camera", "intrinsics", "depth", "depth_confidence"}),
        (da3(V=2), (1, 2), {"camera", "intrinsics", "depth", "depth_confidence"}),
        (pi3x(), (1, 3), {"points", "confidence", "camera", "metric"}),
        (mono(), (2, 2), {"depth", "sky"}),
        (mono("da3-metric", unit="metres"), (2, 2), {"depth", "sky"}),
    ],
    ids=["da3", "da3 of two views", "pi3x", "da3-mono", "da3-metric"],
)
def test_a_clip(parity, tmp_path, manifest, size, names):
    engines = engines_of(tmp_path / "engines", manifest)
    frames = clip_of(tmp_path / "clip", *size, 100, 80)
    (frames / "cameras.json").unlink(missing_ok=True)
    (window,) = same_runs(parity, engines, frames, tmp_path)
    assert names == {name for name in window if not name.startswith("layers.")}


def test_many_clips_choose_as_python_does(parity, tmp_path):
    """The reference view is another one in some of these clips; the cameras' tokens follow from it."""
    engines = engines_of(tmp_path / "engines", da3())
    frames = clip_of(tmp_path / "clip", 12, 4, 100, 80)
    (frames / "cameras.json").unlink(missing_ok=True)
    assert len(same_runs(parity, engines, frames, tmp_path)) == 12


def rig(V):
    """Cameras whose poses the machine's numbers hold exactly: no order of sums makes a difference."""
    turns = ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])
    cameras = {}
    for v in range(V):
        pose = np.concatenate((turns[v % len(turns)], [[4.0 * v], [0.0], [0.0]]), axis=1)
        K = [[64.0, 0, W / 2], [0, 32.0 + v, H / 2], [0, 0, 1]]
        cameras[f"cam{v}"] = {"width": W, "height": H, "K": K, "world_to_camera": pose.tolist()}
    return cameras


@pytest.mark.parametrize(
    ("manifest", "size"),
    [(da3(known=True), (1, 4)), (mono("da3-metric", unit="metres"), (2, 2))],
    ids=["known cameras", "focal lengths"],
)
def test_cameras_that_were_given(parity, tmp_path, manifest, size):
    engines, (T, V) = engines_of(tmp_path / "engines", manifest), size
    frames = FrameFolder.open(
        clip_of(tmp_path / "clip", T, V, W, H), loose=UngroupedImages.of(read_manifest(engines).layout)
    )
    cameras = rig(V)
    info = {"starts": [0], "fit": "none", "sliding": False, "backend": "test", "cameras": list(cameras.values())}
    write_raw(tmp_path / "raw", frames, info, ["masks", "keypoints"])
    done = cpp_run(parity, engines, tmp_path / "raw", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    images = np.stack([[np.asarray(frames.image(t, v)) for v in range(V)] for t in range(T)])
    result = Pipeline.load(engines, "onnxruntime").run(images, cameras=cameras)
    tensors = result.tensors()
    files = {path.name: path.read_bytes() for path in (tmp_path / "cpp" / "0").iterdir()}
    files.pop("world_points", None)
    assert files.keys() == tensors.keys() >= {"depth", "intrinsics"}
    for name, tensor in tensors.items():
        same_tensor(files[name], tensor, name)
