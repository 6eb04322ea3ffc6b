"""The C++ runtime: its own tests, what a program that links it finds, its examples, other compilers and headers. `test_cpp_*.py` hold it against Python's."""

import importlib.util
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from cmake_builds import build, run
from conftest import EVERY
from PIL import Image

from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_export.sample_scene.clip import render, save

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = ROOT / "engines" / "cpp"
NEEDED = {"fundamental": "need the calibration of every view", "keypoints": "exported with --keypoints and need them"}
"""What the runtime says of engines with such an input."""


def test_own_tests_under_sanitizers(cpp):
    assert "100% tests passed" in run("ctest", "--output-on-failure", "--parallel", "2", cwd=cpp)


@pytest.fixture(scope="session")
def installed(cpp, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", cpp, "--prefix", prefix)
    return prefix


def test_the_librarys_symbols_are_its_own(installed):
    """A program may have another version of what this library is made with."""
    lines = run("nm", "--dynamic", "--defined-only", "--demangle", installed / "lib" / "libpage4d_runtime.so").splitlines()
    names = {line.split(maxsplit=2)[-1] for line in lines}
    foreign = {
        name
        for name in names
        if not re.match(r"page4d_\w+$|(\w+ )*(for )?page4d::(Pipeline|Results|Rig|ImageFit|Error|EngineInfo|inspect|name_of|bytes_of)\b", name)
    }
    assert not foreign and {"page4d_load", "page4d_rig_push"} <= names


def test_headers_say_nothing_of_what_is_inside(installed):
    headers = list((installed / "include" / "page4d").glob("*.h"))
    assert len(headers) == len(list((SOURCE / "include" / "page4d").glob("*.h"))) > 8
    included = {name for header in headers for name in re.findall(r"#include <([^>]+)>|#include \"([^\"]+)\"", header.read_text()) for name in name if name}
    assert all(name.startswith("page4d/") or re.fullmatch(r"[a-z_]+(\.h)?", name) for name in included), included


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="session")
def robot(installed, tmp_path_factory):
    """README's program, built as README says."""
    page, folder = (ROOT / "README.md").read_text(), tmp_path_factory.mktemp("robot")
    (lists,), (program,) = blocks(page, "cmake"), blocks(page, "cpp")
    assert len(program.strip().splitlines()) <= 16
    (folder / "robot.cpp").write_text(program)
    (folder / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.22)\nproject(robot CXX)\n{lists}")
    flags = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror -fsanitize=address,undefined"
    build(folder, folder / "build", f"-DCMAKE_PREFIX_PATH={installed}", flags)
    return folder / "build" / "robot"


def refused(robot, *words):
    done = subprocess.run([robot, *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("variant", "precision"), [*((variant, "float32") for variant in EVERY), ("pi3", "float16"), ("default", "float16")])
def test_the_readmes_program_runs_every_models_engines(robot, made, variant, precision):
    """Those that need more than images, it says what they need."""
    folder = made(variant, precision).folder
    manifest = EngineFolder.open(folder).manifest
    if needed := [words for name, words in NEEDED.items() if manifest.reads(name)]:
        code, words = refused(robot, folder)
        assert code == 2 and needed[0] in words
        return
    lines = re.findall(r"^(\S+): (\w+), (\d+) bytes at 0x\w+$", run(robot, folder), re.MULTILINE)
    outputs = BufferPlan.make(manifest).outputs
    assert [name for name, _, _ in lines] == list(outputs)
    for name, dtype, size in lines:
        view = outputs[name]
        poses = "float64", manifest.shape.frames * 4 * 4 * 8
        assert (dtype, int(size)) == (poses if name == "camera" else (view.dtype, math.prod(view.shape) * (2 if view.dtype.endswith("16") else 4)))


def test_the_readmes_program_says_what_is_wrong(robot, made, tmp_path):
    assert refused(robot) == refused(robot, "a", "b") == (2, "usage: robot ENGINES\n")
    code, words = refused(robot, tmp_path)
    assert code == 4 and "the engine folder has no manifest.json" in words


def test_the_ros2_package_as_far_as_it_goes_without_ros(installed, made, tmp_path):
    flags = "-DCMAKE_CXX_FLAGS=-Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
    engines = made("default").folder
    build(ROOT / "examples" / "ros2", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}", flags, f"-DPAGE4D_ROS_TEST_ENGINES={engines}")
    report = run("ctest", "--output-on-failure", cwd=tmp_path)
    assert "100% tests passed" in report and "3/3 Test" in report


def test_a_live_rig(cpp, made):
    rig = cpp / "examples" / "rig" / "rig"
    said = run(rig, made("default").folder, "--backend", "test", "--seconds", "3", "--speed", "4", "--kill", "1@1.5", "--missing", "repeat")
    windows = re.findall(r"^ *window|^ *\d+ ", said, re.MULTILINE)
    assert len(windows) > 5, said
    skipped = run(rig, made("default").folder, "--backend", "test", "--seconds", "3", "--speed", "4", "--kill", "1@1.5", "--missing", "skip")
    assert len(skipped.splitlines()) < len(said.splitlines()), "without the dead camera there are no windows"


def frames_example(cpp, *words):
    done = subprocess.run([cpp / "examples" / "frames" / "frames", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def frames(tmp_path):
    """Five times of two cameras: two windows of three, the second one shares a time with the first."""
    save(render(5, 2, 100, 80, seed=2), tmp_path / "clip")
    return tmp_path / "clip" / "frames"


def test_the_frames_example_writes_a_mask_for_each_frame(cpp, made, frames, tmp_path):
    code, printed, said = frames_example(cpp, made("default").folder, frames, tmp_path / "out", "--test")
    assert (code, said) == (0, "")
    masks = {path.relative_to(tmp_path / "out"): np.asarray(Image.open(path)) for path in (tmp_path / "out").rglob("*.png")}
    assert masks.keys() == {path.relative_to(frames) for path in frames.rglob("*.png")}
    assert all(mask.shape == (4, 5) and mask.dtype == np.uint8 and mask.std() > 0 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
    assert re.fullmatch(r"not written: layers\.\d+, float32, \d+ bytes a window\n", printed)


def test_the_frames_example_without_a_mask_and_with_a_memory(cpp, made, frames, tmp_path):
    """Engines that give no mask end well and write no folder; those that need more than images say what."""
    (frames / "cam2").symlink_to(frames / "cam1")
    code, printed, _ = frames_example(cpp, made("pi3").folder, frames, tmp_path / "out", "--test")
    assert code == 0 and re.findall(r"not written: (\w+)", printed) == ["layers", "points", "confidence", "camera"]
    (frames / "cam2").unlink()
    code, _, said = frames_example(cpp, made("memory").folder, frames, tmp_path / "out", "--test")
    assert code == 2 and NEEDED["fundamental"] in said
    assert not list(tmp_path.glob("out*"))


def test_the_frames_example_says_what_is_wrong_and_leaves_nothing(cpp, made, frames, tmp_path):
    engines = made("default").folder
    for words in ([], [engines, frames], [engines, frames, "out", "--tset"], [engines, frames, "out", "--test", "x"]):
        assert frames_example(cpp, *words)[::2] == (2, frames_example(cpp)[2]) and frames_example(cpp)[2].startswith("usage")
    (tmp_path / "mine").mkdir()
    file = frames / "cam1" / "000003.png"

    def another_size():
        Image.new("RGB", (9, 8)).save(file)

    spoilt = {
        "OUT exists": ("mine", lambda: None),
        "not a readable PNG": ("out", lambda: file.write_text("hello")),
        "has another size": ("out", another_size),
        "cameras have different numbers of frames": ("out", file.unlink),
        "the engines are for other cameras": ("out", lambda: shutil.rmtree(frames / "cam1")),
        "too few frames for a window": ("out", lambda: keep_two_times(frames)),
        "no camera's folder": ("out", lambda: [shutil.rmtree(frames / camera) for camera in ("cam0", "cam1")]),
        "there is no such folder": ("out", frames.rmdir),
    }
    for message, (out, spoil) in spoilt.items():
        spoil()
        code, printed, said = frames_example(cpp, engines, frames, f"{tmp_path / out}/", "--test")
        assert (code, printed) == (2, "") and message in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "mine"] and not list((tmp_path / "mine").iterdir())


def keep_two_times(frames):
    """Of one camera, which stands in for both."""
    for file in sorted((frames / "cam0").iterdir())[2:]:
        file.unlink()
    shutil.copytree(frames / "cam0", frames / "cam1")


def test_another_processor(tmp_path):
    """A build for 64-bit ARM by Debian's compiler; nothing of it is run."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    assert compiler, "test.sh installs it: g++-aarch64-linux-gnu"
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    build(SOURCE, tmp_path, *system, "-DCMAKE_UNITY_BUILD=ON", "-DBUILD_TESTING=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_PNG=ON", "-DCMAKE_CXX_FLAGS=-Werror")
    for built in (tmp_path / "libpage4d_runtime.so.0.1.0", tmp_path / "examples" / "rig" / "rig"):
        assert "AArch64" in run("readelf", "--file-header", built)


@pytest.mark.parametrize("major", [12, 13])
def test_the_drivers_calls_are_those_of_cudas_headers(major):
    folders = [
        pathlib.Path(place) / part
        for place in importlib.util.find_spec("nvidia").submodule_search_locations
        for part in ("cuda_runtime/include", "cu13/include")
    ]
    include = next(folder for folder in folders if f"CUDA_VERSION {major}0" in read(folder / "cuda.h"))
    run(
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-isystem",
        include,
        f"-I{SOURCE}/include",
        f"-I{SOURCE}/src",
        SOURCE / "tests" / "cuda" / "test_cuda_header.cpp",
    )


def read(path):
    return path.read_text() if path.is_file() else ""


def test_the_sanitizers_are_on(cpp):
    """A build without them would let everything above pass."""
    linked = run("ldd", cpp / "tests" / "test_window")
    assert "libasan" in linked and "libubsan" in linked
