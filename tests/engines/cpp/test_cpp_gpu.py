"""The C++ runtime on a GPU, beside Python's: the same plans, so the same bits."""

import importlib.util
import os
import pathlib
import shutil
import subprocess

import pytest
import torch

from page4d.errors import MissingBackendError
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.plans import PlanBuildRequest, build_into, library_for
from page4d_plugins.driver import capability_of
from tests.support.cpp.cmake_builds import run
from tests.support.cpp.parity_runs import clip_of, same_runs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]
ROOT = pathlib.Path(__file__).parents[3]
HEADERS = "TensorRT_ROOT"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A release build of the runtime with TensorRT, its tests and examples; the tests passed."""
    if HEADERS not in os.environ:
        pytest.skip(f"{HEADERS} is not set: no TensorRT headers to build the runtime with")
    folder = tmp_path_factory.mktemp("cpp")
    options = [f"-D{HEADERS}={os.environ[HEADERS]}", "-DCMAKE_CXX_FLAGS=-Werror"]
    run("cmake", "-S", ROOT / "engines" / "cpp", "-B", folder, *options)
    run("cmake", "--build", folder, "--parallel")
    assert "100% tests passed" in run("ctest", "--output-on-failure", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def library():
    """The TensorRT that runs on this GPU."""
    try:
        tensorrt = library_for(None)
    except MissingBackendError as missing:
        pytest.skip(str(missing))
    if not tensorrt.runs_on(capability_of(0)):
        pytest.skip(f"{tensorrt} does not run on this GPU")
    return tensorrt


@pytest.fixture
def planned(library, made, tmp_path):
    """A copy of a variant's engine folder, with plans."""

    def plan(variant):
        shutil.copytree(made(variant, "float16").folder, tmp_path / "engines")
        folder = EngineFolder.open(tmp_path / "engines")
        build_into(folder, PlanBuildRequest(library, BuildOptions(), folder.manifest.precision, native=False))
        return folder

    return plan


@pytest.mark.parametrize("variant", ["default", "late", "pi3", "vggt"])
def test_a_clip_gives_pythons_outputs(build, planned, tmp_path, monkeypatch, variant):
    folder = planned(variant)
    layout = folder.manifest.layout
    clip = clip_of(tmp_path / "clip", layout.T, layout.V, 100, 80)
    specs = [importlib.util.find_spec(name) for name in ("tensorrt_rtx_libs", "tensorrt_libs")]
    places = [place for spec in specs if spec is not None for place in spec.submodule_search_locations]
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([*places, os.environ.get("LD_LIBRARY_PATH", "")]))
    same_runs(build / "tests" / "parity", folder.path, clip, tmp_path, backend="tensorrt")


def test_the_graph_is_made(build, planned):
    """The example `rig` warns if there is no graph."""
    command = [build / "examples" / "rig" / "rig", planned("default").path, "--seconds", "2"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0 and "no CUDA graph" not in completed.stderr, completed.stderr
