"""The C++ runtime: its own tests, a program that links it, its examples, other compilers and headers.

`test_cpp_*.py` compare it with Python's runtime.
"""

import importlib.util
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import onnxruntime
import pytest

from page4d.published import QUATERNION_NUMBERS
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.buffer_plan import BufferPlan
from tests.support.cpp.cmake_builds import build, run
from tests.support.exports import making
from tests.support.models import EVERY

ROOT = pathlib.Path(__file__).parents[3]
SOURCE = ROOT / "engines" / "cpp"
NEEDED = {"fundamental": "need the calibration of every view", "keypoints": "exported with --keypoints and need them"}
"""By input: the runtime's refusal of engines that read it, if it is missing."""


def test_own_tests_under_sanitizers(cpp):
    assert "100% tests passed" in run("ctest", "--output-on-failure", "--parallel", "2", cwd=cpp)


@pytest.fixture(scope="session")
def installed(cpp, shared):
    with making(shared / "cpp-installed") as first:
        if first:
            run("cmake", "--install", cpp, "--prefix", shared / "cpp-installed" / "prefix")
    return shared / "cpp-installed" / "prefix"


def test_the_librarys_symbols_are_its_own(installed):
    """A program may have other versions of the libraries that this one is built with."""
    library = installed / "lib" / "libpage4d_runtime.so"
    lines = run("nm", "--dynamic", "--defined-only", "--demangle", library).splitlines()
    exported = {line.split(maxsplit=2)[-1] for line in lines}
    names = "Pipeline|Results|Rig|ImageFit|Error|EngineInfo|inspect|name_of|bytes_of|world_points|version"
    own = re.compile(rf"page4d_\w+$|(\w+ )*(for )?page4d::({names})\b")
    foreign = {name for name in exported if not own.match(name)}
    assert not foreign and {"page4d_load", "page4d_rig_push", "page4d_world_points"} <= exported


def test_the_library_has_the_packages_version(installed):
    """Programs linked with another minor version, whose interface may differ, do not load this one."""
    version = re.search(r'^version = "(\d+\.\d+)(\.\d+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    library = installed / "lib" / "libpage4d_runtime.so"
    assert library.resolve().name == f"libpage4d_runtime.so.{version[1]}{version[2]}"
    assert f"[libpage4d_runtime.so.{version[1]}]" in run("readelf", "--dynamic", library)
    package = installed / "lib" / "cmake" / "page4d" / "page4d-config-version.cmake"
    assert f'PACKAGE_VERSION "{version[1]}{version[2]}"' in package.read_text()


def test_a_program_that_has_the_sources_builds_the_library_alone(tmp_path):
    """No tests, no examples, no build type that the program did not choose, no targets with general names."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(robot CXX)\n"
        f"add_subdirectory({SOURCE} page4d)\n"
        "file(WRITE ${CMAKE_BINARY_DIR}/type [${CMAKE_BUILD_TYPE}])\n"
        f"get_property(targets DIRECTORY {SOURCE} PROPERTY BUILDSYSTEM_TARGETS)\n"
        'file(WRITE ${CMAKE_BINARY_DIR}/targets "${targets}")\n'
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    assert (tmp_path / "build" / "targets").read_text() == "page4d_objects;page4d_runtime"
    assert (tmp_path / "build" / "type").read_text() == "[]"


def test_headers_include_each_other_and_the_standard_library_alone(installed):
    headers = list((installed / "include" / "page4d").glob("*.h"))
    assert len(headers) == len(list((SOURCE / "include" / "page4d").glob("*.h"))) > 8
    text = "".join(header.read_text() for header in headers)
    included = set(re.findall(r"#include [<\"]([^>\"]+)[>\"]", text))
    assert all(name.startswith("page4d/") or re.fullmatch(r"[a-z_]+(\.h)?", name) for name in included), included


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="session")
def robot(installed, shared):
    """README's program, built as docs/cpp.md says."""
    folder = shared / "robot"
    (lists,) = blocks((ROOT / "docs" / "cpp.md").read_text(), "cmake")
    (program,) = blocks((ROOT / "README.md").read_text(), "cpp")
    assert len(program.strip().splitlines()) <= 18
    flags = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror -fsanitize=address,undefined"
    with making(folder) as first:
        if first:
            (folder / "robot.cpp").write_text(program)
            project = f"cmake_minimum_required(VERSION 3.22)\nproject(robot CXX)\n{lists}"
            (folder / "CMakeLists.txt").write_text(project)
            build(folder, folder / "build", f"-DCMAKE_PREFIX_PATH={installed}", flags)
    return folder / "build" / "robot"


def refused(robot, *arguments):
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    completed = subprocess.run([robot, *map(str, arguments)], capture_output=True, text=True, env=environment)
    return completed.returncode, completed.stderr


@pytest.mark.parametrize(
    ("variant", "precision"), [*((variant, "float32") for variant in EVERY), ("pi3", "float16"), ("default", "float16")]
)
def test_the_readmes_program_runs_every_models_engines(robot, made, variant, precision):
    """Of engines that need more than images, it says what they need."""
    folder = made(variant, precision).folder
    manifest = EngineFolder.open(folder).manifest
    if needed := [message for name, message in NEEDED.items() if manifest.reads(name)]:
        code, error = refused(robot, folder)
        assert code == 2 and needed[0] in error
        return
    printed = run(robot, folder, env={**os.environ, "VIRTUAL_ENV": sys.prefix})
    assert printed.startswith(f"ONNX Runtime {onnxruntime.__version__} on the CPU")
    lines = re.findall(r"^(\S+): (\w+), (\d+) bytes at 0x\w+$", printed, re.MULTILINE)
    expected = {}
    for name, view in BufferPlan.make(manifest, widen=True).outputs.items():
        expected[name] = view.dtype, math.prod(view.shape) * 4
        if name == "camera":
            expected[name] = "float64", manifest.layout.frames * 4 * 4 * 8
            if view.shape[-1] == QUATERNION_NUMBERS:
                expected["intrinsics"] = "float64", manifest.layout.frames * 3 * 3 * 8
    assert {name: (dtype, int(size)) for name, dtype, size in lines} == expected
    assert [name for name, _, _ in lines] == list(expected)


def test_the_readmes_program_says_what_is_wrong(robot, made, tmp_path):
    assert refused(robot) == refused(robot, "a", "b") == (2, "usage: robot ENGINES\n")
    code, error = refused(robot, tmp_path)
    assert code == 4 and "the engine folder has no manifest.json" in error


def test_the_ros2_package_as_far_as_it_goes_without_ros(installed, made, tmp_path):
    flags = "-DCMAKE_CXX_FLAGS=-Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
    engines = ";".join(str(made(variant).folder) for variant in ("default", "vggt", "pi3"))
    options = ["-DPAGE4D_ROS_WITHOUT_ROS=ON", f"-DPAGE4D_ROS_TEST_ENGINES={engines}", flags]
    build(ROOT / "examples" / "ros2", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}", *options)
    report = run("ctest", "--output-on-failure", cwd=tmp_path)
    assert "100% tests passed" in report and "6/6 Test" in report


def test_a_live_rig(cpp, made):
    """Camera 1 is silent from the middle on: its last image is used again, or there are no more windows."""
    options = ["--backend", "test", "--seconds", "3", "--speed", "4", "--kill", "1@1.5"]
    command = [cpp / "examples" / "rig" / "rig", made("default").folder, *options]
    repeated = run(*command, "--missing", "repeat")
    windows = re.findall(r"^ *window|^ *\d+ ", repeated, re.MULTILINE)
    assert len(windows) > 5, repeated
    skipped = run(*command, "--missing", "skip")
    assert len(skipped.splitlines()) < len(repeated.splitlines()), "without the dead camera there are no windows"


@pytest.mark.slow
def test_it_builds_for_64_bit_arm(tmp_path):
    """By Debian's cross compiler; nothing of it is run."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    assert compiler, "test.sh installs it: g++-aarch64-linux-gnu"
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    parts = ["-DBUILD_TESTING=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_PNG=ON"]
    build(SOURCE, tmp_path, *system, *parts, "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_CXX_FLAGS=-Werror")
    for binary in (tmp_path / "libpage4d_runtime.so", tmp_path / "examples" / "rig" / "rig"):
        assert "AArch64" in run("readelf", "--file-header", binary)


@pytest.mark.parametrize("major", [12, 13])
def test_the_drivers_calls_are_those_of_cudas_headers(major):
    places = importlib.util.find_spec("nvidia").submodule_search_locations
    headers = [path for place in places for path in pathlib.Path(place).glob("*/include/cuda.h")]
    include = next(path.parent for path in headers if f"CUDA_VERSION {major}0" in path.read_text())
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    folders = ["-isystem", include, f"-I{SOURCE}/include", f"-I{SOURCE}/src"]
    run("g++", *flags, *folders, SOURCE / "tests" / "cuda" / "test_cuda_header.cpp")


def test_the_sanitizers_are_on(cpp):
    """Without them everything above would pass, too."""
    linked = run("ldd", cpp / "tests" / "test_window")
    assert "libasan" in linked and "libubsan" in linked
