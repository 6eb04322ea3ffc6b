"""The Python programs of README and docs/python.md run as they stand."""

import inspect
import pathlib
import re

import pytest

import page4d_export
from page4d_engines import Pipeline
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def engines(made, tmp_path, monkeypatch):
    """An engine folder called `engines` in the working directory."""
    (tmp_path / "engines").symlink_to(made("default").folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "engines"


def programs(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_readmes_program(engines, capsys):
    (program,) = programs("README.md")
    assert len(program.strip().splitlines()) <= 12
    exec(program, {})
    shape = Pipeline.load(engines).manifest.layout
    assert f"mask {shape.mask_shape} float32" in capsys.readouterr().out.splitlines()


def test_the_python_pages_programs_one_after_the_other(engines, made, monkeypatch):
    """But for the export, which takes long and has tests of its own: here its arguments are checked."""
    signature = inspect.signature(page4d_export.export)
    exported = []

    def export(*arguments, **options):
        exported.append(signature.bind(*arguments, **options).arguments)
        return EngineFolder.open(made("default").folder).manifest

    monkeypatch.setattr(page4d_export, "export", export, raising=False)
    for number in range(2):
        save(render(4, 2, 100, 80, seed=number), engines.parent / "scenes" / f"scene{number}")
    names = {}
    for program in programs("docs/python.md"):
        exec(program, names)
    shape = names["pipeline"].manifest.layout
    for number in range(2):
        assert len(read_summary(engines.parent / f"scene{number}-out" / "summary.json").windows) == 2
    assert names["result"].mask.shape == shape.mask_shape
    assert tuple(names["out"].mask.shape) == names["layout"].mask_shape
    assert names["time_sa"].name == "time_sa.3"
    assert [arguments["out"] for arguments in exported] == ["my_engines"]
