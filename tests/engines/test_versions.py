"""Versions of packages: what is refused, what doctor remarks, and that pyproject.toml and the table say the same."""

import os
import pathlib
import re
import subprocess
import sys

import onnxruntime
import pytest

from page4d.errors import EngineError, MissingBackendError
from page4d_engines import doctor
from page4d_engines.ort import cpu_engine
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.versions import TRIED


def test_the_lowest_of_every_package_is_what_pyproject_asks_for():
    text = (pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, tried in TRIED.items():
        asked = re.search(rf'^    "{re.escape(name)}(?:>=|==)([0-9.]+[0-9])', text, re.MULTILINE)
        assert asked is not None, name
        assert asked[1] == tried.lowest, name


@pytest.mark.parametrize(
    ("installed", "remark"),
    [
        ("1.22.1", "too old, 1.23 is needed"),
        ("1.23.0", None),
        ("1.23.2+cu126", None),
        ("1.32.7", None),
        ("1.33.0.dev1", "newer than 1.32, the newest tried"),
        ("2.0", "newer than 1.32, the newest tried"),
    ],
)
def test_doctor_remarks_a_version_outside_those_tried(monkeypatch, installed, remark):
    monkeypatch.setattr(doctor, "version", lambda name: installed)
    finding = doctor._package("onnxruntime")
    assert finding.said == f"{installed} (GPU)" + (f", {remark}" if remark else "")
    assert finding.ok == (installed != "1.22.1") and (finding.hint is None) == finding.ok


def test_an_old_onnxruntime_is_refused_before_a_stage_is_read(monkeypatch, tmp_path):
    cpu_engine.require_supported.cache_clear()
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    with pytest.raises(MissingBackendError, match=r"too old(.|\n)*1\.22\.1(.|\n)*1\.23 and newer(.|\n)*pip install"):
        OrtEngine(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("header", "allowed"),
    [('ir_version: 99, opset_import: ["" : 20]', "IR version"), ('ir_version: 10, opset_import: ["" : 99]', "opset")],
)
def test_a_newer_onnx_than_onnxruntime_reads_is_named(tmp_path, header, allowed):
    import onnx.parser

    model = onnx.parser.parse_model(f"<{header}> g (float[2] x) => (float[2] y) {{ y = Mul (x, x) }}")
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineError) as caught:
        OrtEngine(tmp_path / "new.onnx")
    assert f"newer ONNX than ONNX Runtime {onnxruntime.__version__}" in caught.value.what
    assert str(caught.value.allowed).startswith(f"up to {allowed} ") and "--upgrade onnxruntime" in caught.value.hint


def test_a_stage_that_is_not_taken_names_the_onnxruntime(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=re.escape(f"cannot be loaded by ONNX Runtime {onnxruntime.__version__}")):
        OrtEngine(tmp_path / "bad.onnx")


_SESSION = """
import sys
if "before" in sys.argv: import onnxruntime
import page4d_engines.ort.cpu_engine as engine, pathlib
calls = []
engine.onnxruntime.disable_telemetry_events = lambda: calls.append(1)
engine.ThreadPool.of(1, shared=True)
for _ in range(2): engine.OrtEngine(pathlib.Path(sys.argv[1]))
print(len(calls))
"""


@pytest.mark.parametrize("order", ["after", "before"])
def test_onnxruntime_is_told_once_to_report_nothing_and_leaves_nothing_in_the_home_folder(tmp_path, order):
    import onnx.parser

    stage, home = tmp_path / "stage.onnx", tmp_path / "home"
    home.mkdir()
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Mul (x, x) }'
    )
    stage.write_bytes(model.SerializeToString())
    own = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment = own | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", _SESSION, stage, order], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    if order == "after":  # before it, whoever imported ONNX Runtime let it
        assert not list(home.rglob("*"))
