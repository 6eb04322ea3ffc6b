"""Depth Anything 3 and Pi3X in both runtimes: what the host computes between and after the stages."""

import shutil

import numpy as np
import pytest

from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.ort import cpu_engine
from page4d_engines.pipeline import Pipeline
from page4d_export.exporter import write_unverified
from tests.support.cpp.parity_runs import Checksums, clip_of, cpp_run, same_runs, same_tensor, write_raw
from tests.support.da3.models import model_of
from tests.support.exports import making
from tests.vectors.published_manifests import H, W, plan_of_model


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


@pytest.fixture(scope="session")
def engines(shared):
    """Engine folders of small models by name and number of views, each made once for all processes of a run."""

    def make(name, V):
        folder = shared / f"made-published-{name}-{V}" / "engines"
        with making(folder.parent) as first:
            if first:
                shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
                folder.mkdir()
                write_unverified(model_of(name), plan_of_model(name, V), folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "V", "outputs"),
    [
        ("da3", 4, {"camera", "intrinsics", "depth", "depth_confidence"}),
        ("pi3x", 3, {"points", "confidence", "camera", "metric"}),
        ("mono", 4, {"depth", "sky"}),
        ("metric", 4, {"depth", "sky"}),
    ],
)
def test_a_clip(parity, engines, tmp_path, name, V, outputs):
    frames = clip_of(tmp_path / "clip", 1, V, 100, 80)
    (frames / "cameras.json").unlink()
    fit = None if name == "pi3x" else "published"  # Depth Anything 3's own way
    (window,) = same_runs(parity, engines(name, V), frames, tmp_path, fit=fit)
    assert outputs == {output for output in window if not output.startswith("layers.")}


def test_many_windows_choose_as_python_does(parity, engines, tmp_path):
    """The reference view is another one in some of these windows; all tokens follow from it."""
    frames = clip_of(tmp_path / "clip", 12, 4, 100, 80)
    (frames / "cameras.json").unlink()
    assert len(same_runs(parity, engines("da3", 4), frames, tmp_path, fit="stretch")) == 12


def rig(V):
    """Cameras whose poses the machine's numbers hold exactly: no order of sums makes a difference."""
    turns = ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])
    cameras = {}
    for v in range(V):
        pose = np.concatenate((turns[v % len(turns)], [[4.0 * v], [0.0], [0.0]]), axis=1)
        K = [[64.0, 0, W / 2], [0, 32.0 + v, H / 2], [0, 0, 1]]
        cameras[f"cam{v}"] = {"width": W, "height": H, "K": K, "world_to_camera": pose.tolist()}
    return cameras


@pytest.mark.parametrize(("name", "V"), [("known", 4), ("metric", 4)])
def test_cameras_that_were_given(parity, engines, tmp_path, name, V):
    folder = engines(name, V)
    loose = UngroupedImages.of(read_manifest(folder).layout)
    frames = FrameFolder.open(clip_of(tmp_path / "clip", 1, V, W, H), loose=loose)
    cameras = rig(V)
    info = {"starts": [0], "fit": "none", "sliding": False, "backend": "test", "cameras": list(cameras.values())}
    write_raw(tmp_path / "raw", frames, info, ["masks", "keypoints"])
    done = cpp_run(parity, folder, tmp_path / "raw", tmp_path / "cpp")
    assert done.returncode == 0, done.stderr
    images = np.stack([[np.asarray(frames.image(0, v)) for v in range(V)]])
    result = Pipeline.load(folder, "onnxruntime").run(images, cameras=cameras)
    tensors = result.tensors()
    files = {path.name: path.read_bytes() for path in (tmp_path / "cpp" / "0").iterdir()}
    files.pop("world_points", None)
    assert files.keys() == tensors.keys() >= {"depth", "intrinsics"}
    for name, tensor in tensors.items():
        same_tensor(files[name], tensor, name)
