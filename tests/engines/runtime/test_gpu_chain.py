"""The chain on a GPU, as far as it goes without one: `driver_cases.py` on the CUDA driver of `driver/`."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parents[2] / "support" / "driver"
WARNINGS = ("-Wall", "-Wextra", "-Werror")


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_cases_on_a_driver_without_a_gpu(made, tmp_path, which):
    for variant in ("default", "memory", "vggt"):  # the shared folder of engines is then known to the other process
        made(variant)
    library = tmp_path / "libcuda.so.1"
    build = ["c++", "-std=c++17", "-O1", *WARNINGS, "-shared", "-fPIC", HERE / "driver.cpp", "-o", library]
    subprocess.run([*build, "-Wl,-soname,libcuda.so.1", "-ldl"], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    options = ["-m", which, "--show-capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *options, "--basetemp", tmp_path / "cases", HERE / "driver_cases.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
