"""Depth Anything 3 and Pi3X in both runtimes: what the host computes between and after the stages."""

import functools

import pytest

from page4d_engines.ort import cpu_engine
from tests.support.cpp.parity_runs import Checksums, clip_of, same_runs, same_with_cameras
from tests.support.cpp.published_engines import exact_rig, published_engines
from tests.vectors.published_manifests import H, W


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


@pytest.fixture(scope="session")
def engines(shared):
    return functools.partial(published_engines, shared)


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


@pytest.mark.parametrize(("name", "V"), [("known", 4), ("metric", 4)])
def test_cameras_that_were_given(parity, engines, tmp_path, name, V):
    frames = clip_of(tmp_path / "clip", 1, V, W, H)
    tensors = same_with_cameras(parity, engines(name, V), frames, exact_rig(V), tmp_path)
    assert tensors.keys() >= {"depth", "intrinsics"}
