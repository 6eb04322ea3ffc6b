"""Engines run on a CPU in an environment that has neither `onnx` nor what exports."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from page4d.system.progress import SILENT
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.results.clip_run import ClipRun, RunOptions
from tests.support.cpp.parity_runs import clip_of, keypoints_for
from tests.support.exports import rehash

WITHOUT = """
import sys
for name in ("onnx", "onnx_ir", "onnxscript", "torch", "page4d_export"):
    sys.modules[name] = None  # import raises ImportError
"""
RUN = (
    WITHOUT
    + """
from page4d_engines.entry import run
clip, *folders = sys.argv[1:]
for number, folder in enumerate(folders):
    sys.argv = ["page4d-run", folder, clip, "-o", f"{clip}-out{number}", "--threads", "1", "--backend", "onnxruntime"]
    try:
        run()
    except SystemExit as end:
        assert not end.code, end.code
"""
)


def in_process(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_page4d_run_gives_the_same_results(made, tmp_path):
    folders = [made("default", precision).folder for precision in ("float32", "int8", "float16")]
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    keypoints_for(clip)
    done = in_process(RUN, clip, *folders)
    assert done.returncode == 0, done.stderr
    for number, folder in enumerate(folders):
        engines = EngineFolder.open(folder)
        frames = FrameFolder.open(clip, loose=UngroupedImages.of(engines.manifest.layout))
        out, options = tmp_path / f"here{number}", RunOptions(None, None, Backend.ONNXRUNTIME, ThreadPool.of(1))
        ClipRun.prepare(engines, frames, out, options).run(SILENT)
        expected = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
        actual = {path.name: path.read_bytes() for path in (tmp_path / f"clip-out{number}").glob("*.safetensors")}
        assert expected and actual == expected


LOAD = (
    WITHOUT
    + """
from page4d.errors import Page4DError
from page4d_engines import Pipeline
backend, rounding, folder = sys.argv[1:]
try:
    Pipeline.load(folder, backend, threads=1, rounding=rounding == "rounding")
except Page4DError as error:
    print(int(error.exit_code), error)
"""
)


def without_graphs_for_a_cpu(folder):
    """As exporters before them wrote it."""

    def change(manifest):
        for stage in manifest["stages"]:
            for key in ("cpu", "cpu_signed"):
                name = stage.pop(key, None)
                if name:
                    del manifest["files"][name]
                    (folder / name).unlink()

    rehash(folder, change)


@pytest.mark.parametrize("case", ["no graphs for a CPU", "rounding"])
def test_what_needs_onnx_names_it(made, tmp_path, case):
    folder = shutil.copytree(made("default", "float16").folder, tmp_path / "engines")
    if case != "rounding":
        without_graphs_for_a_cpu(folder)
        assert "cpu" not in json.loads((folder / "manifest.json").read_text())["stages"][0]
        images = np.zeros(made("default", "float16").plan.layout.images_shape, np.uint8)
        Pipeline.load(folder, "onnxruntime", threads=1).run(images)
    done = in_process(LOAD, "onnxruntime", "rounding" if case == "rounding" else "", folder)
    assert done.returncode == 0, done.stderr
    code, _, message = done.stdout.partition(" ")
    assert int(code) == 5 and "needs the package onnx" in message and 'pip install "onnx>=' in message


COMMAND = """
import sys

sys.modules["onnx"] = None  # importing it fails
sys.argv[0] = "page4d"
from page4d_export.entry import main
main()
"""


@pytest.mark.parametrize("command", ["export --build-only {engines}", "export-triton {engines} -o {out}"])
def test_commands_that_need_onnx_name_it(made, tmp_path, command):
    words = command.format(engines=made().folder, out=tmp_path / "out").split()
    done = in_process(COMMAND, *words)
    assert done.returncode == 5 and "needs the package onnx" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_doctor_says_what_is_missing(tmp_path):
    done = in_process(COMMAND, "doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"build plans.*onnx", done.stdout)
