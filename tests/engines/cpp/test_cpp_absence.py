"""The C++ runtime's outputs of windows with absent images equal Python's, over checksums and over ONNX Runtime."""

import numpy as np
import pytest

from page4d import Layout, ModelConfig
from page4d.precision import Precision
from page4d_engines.ort import cpu_engine
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from tests.support.cpp.absent_runs import same_absent_runs
from tests.support.cpp.parity_runs import Checksums
from tests.support.models import PUBLISHED, lively

VARIANTS = ["default", "memory", "dilated", "late", "pi3", "pi3x", "vggt", "page4d 2026", "da3"]


@pytest.fixture(scope="session")
def parity(cpp):
    return cpp / "tests" / "parity"


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """Engines of Depth Anything 3 for five known cameras."""
    options = {"encoder_depth": 2, **PUBLISHED["da3"][0], "known_cameras": True, "reference_view": "first"}
    config, folder = ModelConfig.preset(**options), tmp_path_factory.mktemp("known")
    plan = ExportPlan.make(config, Layout(1, 5, 28, 42), Precision.FLOAT32, head_images=1, absent_views=True)
    write_unverified(lively(config), plan, folder)
    return folder


@pytest.fixture(params=["test", "onnxruntime"])
def backend(request, monkeypatch):
    """Checksums see every byte that goes into a stage; the network shows that the bytes are the right ones."""
    if request.param == "test":
        monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)
    return request.param


@pytest.mark.parametrize("variant", VARIANTS)
def test_windows_with_absent_images(parity, made, tmp_path, backend, variant):
    same_absent_runs(parity, made(variant, absent_views=True).folder, tmp_path, backend)


@pytest.mark.parametrize("variant", ["default", "memory", "vggt"])
def test_windows_that_overlap(parity, made, tmp_path, backend, variant):
    """Only new timesteps are encoded; another image may be the first that is there."""
    same_absent_runs(parity, made(variant, absent_views=True).folder, tmp_path, backend, stride=1)


def test_known_cameras(parity, known, tmp_path, backend):
    windows = same_absent_runs(parity, known, tmp_path, backend)
    depths = np.stack([window["depth"] for window in windows])
    assert backend == "test" or np.ptp(np.nanmean(depths, axis=(1, 2, 3, 4))) > 0


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_other_precisions(parity, made, tmp_path, backend, precision):
    same_absent_runs(parity, made("default", precision, absent_views=True).folder, tmp_path, backend)
