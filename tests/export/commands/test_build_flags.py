"""Flags of plans: what `--build-only` and an export build, and what they refuse."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from page4d.files import sha256
from page4d.manifest import Flavor
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.plans import PLUGINS, library_for
from page4d_export.commands.build_flags import BuildFlags, PlanBuilder
from page4d_plugins.kernel_pack import shipped
from tests.support.commands import TINY, inside, program
from tests.support.exports import content


@pytest.fixture
def engines(made, tmp_path):
    """A copy of a float16 folder without plans."""
    return shutil.copytree(made("default", "float16").folder, tmp_path / "engines")


def test_build_only_needs_no_torch(engines):
    code = "import sys; sys.modules['torch'] = None; from page4d_export.main import export; export()"
    arguments = ("--build-only", engines, "--target", "sm_89", "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((engines / "manifest.json").read_text()) and document["plans"]["chips"] == ["sm_89"]
    assert "plans: TensorRT-RTX" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--T", 4), 2, "--build-only takes model, layout and precision from the engine folder"),
        (("--fp16",), 2, "--build-only takes model, layout and precision from the engine folder"),
        (
            ("--no-build",),
            2,
            "--build-only takes model, layout and precision from the engine folder\n  got:     --no-build",
        ),
        (("--attention", "native", "--height", 56), 2, "from the engine folder\n  got:     --height, --attention"),
        (("--target", "sm_90"), 2, "allowed: sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
        (("--target", ","), 2, "--target names no GPU architecture"),
        (("--optimization-level", 6), 2, "Invalid value for '--optimization-level'"),
        (("--backend", "rtx", "--hardware-compat"), 2, "--hardware-compat is full TensorRT's"),
        (("--backend", "wrong"), 2, "not one of 'auto', 'tensorrt', 'rtx'"),
    ],
)
def test_build_only_refuses(made, arguments, code, words):
    path = made("default", "float16").folder
    before = content(path)
    done = inside("--build-only", path, *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert content(path) == before


def test_plans_are_16_bits(made):
    done = inside("--build-only", made().folder)
    assert done.returncode == 2 and "--fp16, --bf16 or --fp8" in done.stderr, done.stderr
    done = inside(*TINY, "--target", "sm_89", "-o", "unused")
    assert done.returncode == 2 and "--fp16, --bf16 or --fp8" in done.stderr, done.stderr


def test_full_tensorrt_is_a_demand(made):
    try:
        library_for(Flavor.TENSORRT)
    except ImportError as missing:
        done = inside("--build-only", made("default", "float16").folder, "--backend", "tensorrt")
        assert done.returncode == 5 and missing.what in done.stderr, done.stderr
    else:
        pytest.skip("full TensorRT and a GPU are here")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--no-build", "--backend", "rtx"), "--no-build excludes flags that ask for plans"),
        (("--no-build", "--target", "sm_89"), "--no-build excludes flags that ask for plans"),
        (("--backend", "wrong"), "not one of 'auto', 'tensorrt', 'rtx'"),
        (("--fp16", "--target", "sm_90"), "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
    ],
)
def test_an_export_refuses(arguments, words, tmp_path):
    done = inside(*TINY, *arguments, "-o", tmp_path / "engines")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []


def compiled(path, kernels):
    """A library that says it has these kernels, as that of plugins/csrc does, which wants TensorRT's headers."""
    source = f'extern "C" const char* page4d_plugins_kernels() {{ return "{kernels}"; }}'
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)], input=source, text=True, check=True)
    return path


def test_the_plugins_library_travels_with_the_plans(engines, tmp_path):
    library = compiled(tmp_path / "lib.so", shipped().header.source)
    done = inside(
        "--build-only", engines, "--backend", "rtx", "--target", "sm_89", "--plugin-library", library, "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert (engines / PLUGINS).read_bytes() == library.read_bytes()
    assert EngineFolder.open(engines).manifest.files[PLUGINS] == sha256(library)


@pytest.mark.parametrize("case", ["missing", "a text", "other kernels"])
def test_another_library_is_refused(case, engines, tmp_path):
    library = tmp_path / "lib.so"
    if case == "a text":
        library.write_text(f"page4d_plugins_kernels {shipped().header.source}")
    elif case == "other kernels":
        compiled(library, "0" * 64)
    before = content(engines)
    done = inside("--build-only", engines, "--backend", "rtx", "--plugin-library", library)
    assert done.returncode == 2, done.stderr
    assert "--plugin-library" in done.stderr and "build plugins/csrc" in done.stderr
    assert content(engines) == before


@pytest.mark.parametrize("missing", ["--T", "--V"])
def test_an_export_needs_a_layout(missing):
    sizes = {"--T": 2, "--V": 2}
    del sizes[missing]
    done = inside("--preset", "tiny", *itertools.chain(*sizes.items()))
    assert done.returncode == 2 and f"no {missing}" in done.stderr, done.stderr


def test_what_is_built_and_why_not():
    def decision(precision, **flags):
        return BuildFlags(**flags).request(Precision(precision), AttentionChoice.AUTO)

    assert decision("float32") == (None, "plans: none, TensorRT takes --fp16, --bf16 or --fp8")
    assert decision("float16", no_build=True) == (None, "plans: none, --no-build")
    build, why = decision("bfloat16", target="sm_120, sm_89,sm_120", optimization_level=2)
    assert build.chips == ("sm_120", "sm_89") and why == f"plans: {library_for(Flavor.RTX)}, for sm_120, sm_89"
    assert build.options == BuildOptions(("sm_120", "sm_89"), 2)
    assert build.library.flavor is Flavor.RTX and build.warnings == []
    build, why = decision("float16", builder=PlanBuilder.RTX)
    assert build.chips == () and why.endswith("for sm_80 and newer")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "plans: none, TensorRT takes --fp16, --bf16 or --fp8"),
        (("--fp16", "--no-build"), "plans: none, --no-build"),
        (("--bf16",), "plans: TensorRT"),
    ],
)
def test_what_is_built_is_said_before_the_export(arguments, says, tmp_path):
    done = inside(*TINY, *arguments, "--frames", tmp_path / "missing", "-o", tmp_path / "engines")
    assert done.returncode == 2 and done.stderr.startswith(says), done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("after", [0.1, 0.5, 1.0])
def test_ctrl_c_ends_a_build_and_changes_nothing(engines, after):
    before = content(engines)
    command = [*program("page4d-export"), "--build-only", engines, "--target", "sm_89"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(engines.parent.glob(".engines-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors, errors
    assert content(engines) == before and not list(engines.parent.glob(".engines-*"))
