"""The C++ runtime's threads under ThreadSanitizer: what its own tests do with them, and the example of a live rig."""

import json
import os
import pathlib
import re
import sys

import pytest

from tests.support.cpp.cmake_builds import build, run
from tests.support.exports import making

SOURCE = pathlib.Path(__file__).parents[3] / "engines" / "cpp"
THREADED = (
    "boundary",
    "c_api",
    "c_calls",
    "log",
    "lost_cameras",
    "pipeline",
    "rig",
    "rig_threads",
    "streams",
    "window",
)
"""Tests that start threads, or whose calls do: files are hashed on several."""
OPTIONS = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 second_deadlock_stack=1"}

BUILDS = pytest.mark.slow  # a build of its own


@pytest.fixture(scope="session")
def threads(shared):
    """The build folder of the preset tsan, as far as these tests need it."""
    targets = ["page4d_make_folder", "page4d_rig", *(f"page4d_test_{name}" for name in THREADED)]
    with making(shared / "cpp-threads") as first:
        if first:
            build(SOURCE, shared / "cpp-threads" / "build", "--preset", "tsan", targets=targets)
    return shared / "cpp-threads" / "build"


def test_the_preset_is_the_sanitizers():
    presets = json.loads((SOURCE / "CMakePresets.json").read_text())["configurePresets"]
    (preset,) = (preset for preset in presets if preset["name"] == "tsan")
    assert preset["cacheVariables"]["PAGE4D_SANITIZE"] == "thread"


@BUILDS
def test_own_tests_have_no_data_races(threads):
    names = "|".join(("make_folder.*", *THREADED))
    report = run("ctest", "--output-on-failure", "--tests-regex", f"^({names})$", cwd=threads, env=OPTIONS)
    passed = re.search(r"100% tests passed.* out of (\d+)", report)
    assert passed and int(passed[1]) == len(THREADED) + 3


@BUILDS
@pytest.mark.parametrize("backend", ["test", "onnxruntime"])
def test_a_live_rig_has_no_data_races(threads, made, backend):
    """A thread for each camera, one of which ends early, beside the one that runs windows.

    ONNX Runtime's library was built without the sanitizer, which does not see how its threads wait for each other.
    """
    options = ["--rate", "10", "--seconds", "1.5", "--kill", "1", "--from", "1", "--missing", "repeat"]
    environment = {**OPTIONS, "VIRTUAL_ENV": sys.prefix}
    environment["TSAN_OPTIONS"] += " ignore_noninstrumented_modules=1"
    command = [threads / "examples" / "rig" / "rig", made("default").folder, "--backend", backend, *options]
    assert "windows were dropped" in run(*command, env=environment)


@BUILDS
def test_the_sanitizer_is_on(threads):
    """Without it everything above would pass, too."""
    assert "libtsan" in run("ldd", threads / "tests" / "test_rig")
