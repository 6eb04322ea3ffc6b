"""The C++ runtime looks into graphs for a CPU before ONNX Runtime reads them, and refuses what Python refuses."""

import shutil
import subprocess

import onnx
import pytest

from page4d.errors import EngineError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.stage_files.cpu_graph_check import check_cpu_graph
from tests.support.cpp.parity_runs import clip_of, cpp_run, onnxruntime_library, write_raw
from tests.support.hostile.graphs import (
    LOCATIONS,
    a_graph_as_a_default,
    an_input_twice,
    endless_function,
    foreign,
    foreign_function,
    loop,
    nested,
    outside,
    place,
    sparse_weights_of_a_loop,
    trips_of_two_attributes,
    trips_that_hide_a_constant,
    trips_without_a_name,
    weights_of_a_loop,
    with_graph,
    with_loop,
)
from tests.support.hostile.mutations import mutated


def verdicts(cpp, folder, stage, graph, files):
    """The first line of C++'s error of each file, or "taken"."""
    program = [cpp / "tests" / "check_graphs", folder, stage, graph]
    done = subprocess.run(program, input="".join(f"{file}\n" for file in files), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def python_verdict(content, graph, folder, manifest, entry):
    try:
        check_cpu_graph(content, graph, folder, manifest, entry)
    except EngineError as error:
        return error.what
    return "taken"


def test_changed_graphs_are_taken_and_refused_as_in_python(cpp, made, tmp_path):
    folder = made("memory").folder
    manifest = read_manifest(folder)
    entry = min(manifest.stages, key=lambda stage: (not any_loop(folder, stage), (folder / stage.cpu).stat().st_size))
    original = (folder / entry.cpu).read_bytes()
    contents = [original, *mutated([original], 1500)]
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    expected = [python_verdict(content, entry.cpu, folder, manifest, entry) for content in contents]
    assert expected[0] == "taken" and any_loop(folder, entry) and 100 < expected.count("taken") < 1400
    assert verdicts(cpp, folder, entry.name, entry.cpu, files) == expected


def any_loop(folder, stage):
    return b"Loop" in (folder / stage.cpu).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        nested(2**11, 2**10),
        nested(2**10, 2**10),
        *map(
            with_loop,
            (
                trips_without_a_name,
                trips_of_two_attributes,
                trips_that_hide_a_constant,
                a_graph_as_a_default,
                weights_of_a_loop,
                sparse_weights_of_a_loop,
            ),
        ),
        loop,
        foreign,
        foreign_function,
        endless_function,
        an_input_twice,
    ],
)
def test_hostile_graphs_are_taken_and_refused_as_in_python(cpp, made, tmp_path, change):
    folder = made().folder
    manifest = read_manifest(folder)
    entry = next(stage for stage in manifest.stages if stage.kind == "mask_head")
    model = onnx.load(folder / entry.cpu)
    change(model)
    file = tmp_path / "graph"
    file.write_bytes(model.SerializeToString())
    expected = python_verdict(file.read_bytes(), entry.cpu, folder, manifest, entry)
    assert verdicts(cpp, folder, entry.name, entry.cpu, [file]) == [expected]


@pytest.mark.parametrize("kind", LOCATIONS)
def test_weights_lie_beside_their_graph_in_cpp_as_well(cpp, made, tmp_path, kind):
    folder = shutil.copytree(made().folder, tmp_path / "engines")
    name = "onnx/encoder.cpu.onnx"
    with_graph(folder, lambda model: place(outside(model), location=LOCATIONS[kind], offset=0), name)
    (verdict,) = verdicts(cpp, folder, "encoder", name, [folder / name])
    assert verdict == f"{name} has weights that are not in the engine folder"


def test_a_pipeline_refuses_such_a_graph(cpp, made, tmp_path):
    folder = shutil.copytree(made().folder, tmp_path / "engines")
    name = "onnx/encoder.cpu.onnx"
    with_graph(folder, lambda model: place(outside(model), location="/etc/passwd", offset=0), name)
    frames = FrameFolder.open(clip_of(tmp_path / "clip", 3, 2, 70, 56))
    info = {"starts": [0], "fit": "none", "sliding": False, "backend": "onnxruntime", "library": onnxruntime_library()}
    write_raw(tmp_path / "raw", frames, info, ["masks", "keypoints"])
    done = cpp_run(cpp / "tests" / "parity", folder, tmp_path / "raw", tmp_path / "cpp")
    assert done.returncode == 4 and f"{name} has weights that are not in the engine folder" in done.stderr
