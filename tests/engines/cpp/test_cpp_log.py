"""What ONNX Runtime says reaches the log of a C++ program, and nothing else."""

import pathlib
import re
import shutil
import subprocess

import onnx
import onnxruntime

from page4d_engines.engine_folder import EngineFolder
from tests.support.exports import rehash


def test_the_log_has_onnx_runtimes_messages_and_nothing_is_printed_without_one(cpp, made, tmp_path):
    """A weight that no operation reads, of which ONNX Runtime warns."""
    folder = tmp_path / "engines"
    shutil.copytree(made("default").folder, folder)
    stage = EngineFolder.open(folder).manifest.stages[0]
    graph = onnx.load(folder / stage.cpu, load_external_data=False)
    graph.graph.initializer.append(onnx.helper.make_tensor("idle_weight", onnx.TensorProto.FLOAT, [1], [0.0]))
    onnx.save(graph, folder / stage.cpu)
    rehash(folder)
    (library,) = (pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    command = [cpp / "tests" / "log_messages", folder, library]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")
    lines = completed.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(r"1 ONNX Runtime: .*'idle_weight'.*", line)], completed.stdout
    assert lines[-1] == f"0 {folder}: ONNX Runtime {onnxruntime.__version__} on the CPU, 1 thread"
    assert len(lines) == 2, completed.stdout
