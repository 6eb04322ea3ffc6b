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
from tests.support.cmake_builds import run
from tests.support.parity_runs import clip_of, same_runs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]
ROOT = pathlib.Path(__file__).parents[3]
HEADERS = "TensorRT_ROOT"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The runtime, its tests and examples, as they are used, with TensorRT."""
    if HEADERS not in os.environ:
        pytest.skip(f"{HEADERS} is not set: no TensorRT headers to build the runtime with")
    folder = tmp_path_factory.mktemp("cpp")
    run(
        "cmake",
        "-S",
        ROOT / "engines" / "cpp",
        "-B",
        folder,
        f"-D{HEADERS}={os.environ[HEADERS]}",
        "-DCMAKE_CXX_FLAGS=-Werror",
    )
    run("cmake", "--build", folder, "--parallel")
    assert "100% tests passed" in run("ctest", "--output-on-failure", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def library():
    """The TensorRT that runs on this GPU."""
    try:
        found = library_for(None)
    except MissingBackendError as missing:
        pytest.skip(str(missing))
    if not found.runs_on(capability_of(0)):
        pytest.skip(f"{found} does not run on this GPU")
    return found


@pytest.mark.parametrize("variant", ["default", "late", "pi3"])
def test_a_clip_gives_pythons_outputs(build, library, made, tmp_path, monkeypatch, variant):
    engines = tmp_path / "engines"
    shutil.copytree(made(variant, "float16").folder, engines)
    folder = EngineFolder.open(engines)
    build_into(folder, PlanBuildRequest(library, BuildOptions(), folder.manifest.precision, native=False))
    layout = folder.manifest.layout
    clip = clip_of(tmp_path / "clip", layout.T, layout.V, 100, 80)
    specs = [importlib.util.find_spec(name) for name in ("tensorrt_rtx_libs", "tensorrt_libs")]
    places = [place for spec in specs if spec is not None for place in spec.submodule_search_locations]
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([*places, os.environ.get("LD_LIBRARY_PATH", "")]))
    same_runs(build / "tests" / "parity", engines, clip, tmp_path, backend="tensorrt")


def test_the_graph_is_made(build, library, made, tmp_path):
    """The rig's example warns where there is none."""
    engines = tmp_path / "engines"
    shutil.copytree(made("default", "float16").folder, engines)
    folder = EngineFolder.open(engines)
    build_into(folder, PlanBuildRequest(library, BuildOptions(), folder.manifest.precision, native=False))
    rig = build / "examples" / "rig" / "rig"
    done = subprocess.run([rig, engines, "--seconds", "2"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "no CUDA graph" not in done.stderr, done.stderr
