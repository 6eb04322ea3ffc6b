"""The C++ runtime built with TensorRT's headers: its own tests, with a stand-in for TensorRT, under sanitizers."""

import os
import pathlib

import pytest

from tests.support.cpp.cmake_builds import SANITIZED, build, run

SOURCE = pathlib.Path(__file__).parents[3] / "engines" / "cpp"


def test_own_tests_with_tensorrt(tmp_path):
    root = os.environ.get("TensorRT_ROOT")  # noqa: SIM112  CMake's spelling
    if root is None:
        pytest.skip("TensorRT_ROOT is not set: no TensorRT headers to build the runtime with")
    build(SOURCE, tmp_path, *SANITIZED, f"-DTensorRT_ROOT={root}", "-DPAGE4D_EXAMPLES=OFF", "-DPAGE4D_PLUGINS=OFF")
    report = run("ctest", "--output-on-failure", cwd=tmp_path)
    assert "100% tests passed" in report and " tensorrt " in report
