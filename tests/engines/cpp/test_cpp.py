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
FUNCTIONS = {
    "rclcpp::": """
namespace rclcpp { struct Logger {}; }
#define RCLCPP_INFO(logger, ...) std::printf(__VA_ARGS__), static_cast<void>(logger)
#define RCLCPP_WARN RCLCPP_INFO
#define RCLCPP_ERROR RCLCPP_INFO
""",
    "spdlog::": """
namespace spdlog {
namespace level { enum level_enum { info, warn, err }; }
struct logger { void log(level::level_enum, const char*, const char*) {} };
}
""",
    "page4d::Rig&": "",
}
"""Functions in docs/cpp.md, by a name in them: stand-ins for what they use of other libraries."""


def test_own_tests_under_sanitizers(cpp):
    assert "100% tests passed" in run("ctest", "--output-on-failure", "--parallel", "2", cwd=cpp)


def test_the_librarys_symbols_are_its_own(installed):
    """A program may have other versions of the libraries that this one is built with."""
    library = installed / "lib" / "libpage4d_runtime.so"
    lines = run("nm", "--dynamic", "--defined-only", "--demangle", library).splitlines()
    exported = {line.split(maxsplit=2)[-1] for line in lines}
    names = "Pipeline|Results|Rig|ImageFit|Error|EngineInfo|inspect|name_of|bytes_of|world_points|version"
    own = re.compile(rf"page4d_\w+$|(\w+ )*(for )?page4d::({names})\b")
    foreign = {name for name in exported if not own.match(name)}
    assert not foreign and {"page4d_load", "page4d_rig_push", "page4d_world_points"} <= exported


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


def test_the_documents_functions_compile(tmp_path):
    """Those of docs/cpp.md: a consumer of a rig, logs of a ROS 2 node and of spdlog, a window in C89."""
    page = (ROOT / "docs" / "cpp.md").read_text()
    (in_c,) = blocks(page, "c")
    (tmp_path / "function.c").write_text(f'#include <stdio.h>\n#include "page4d/page4d.h"\n{in_c}')
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE}/include"]
    run("gcc", "-std=c90", "-pedantic-errors", *flags, tmp_path / "function.c")
    headers = '#include <cmath>\n#include <cstdio>\n#include "page4d/pipeline.h"\n#include "page4d/rig.h"\n'
    for number, (name, stand_in) in enumerate(FUNCTIONS.items()):
        (function,) = [block for block in blocks(page, "cpp") if name in block]
        file = tmp_path / f"function_{number}.cpp"
        file.write_text(headers + stand_in + function)
        run("g++", "-std=c++17", *flags, file)


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


def test_the_ros2_package_as_far_as_it_goes_without_ros(ros2_parts):
    report = run("ctest", "--output-on-failure", cwd=ros2_parts)
    assert "100% tests passed" in report and "6/6 Test" in report


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
