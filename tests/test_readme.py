"""README's Python program runs as it stands."""

import pathlib
import re

from page4d_engines import Pipeline

ROOT = pathlib.Path(__file__).parents[1]


def test_the_python_program_runs(made, tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(program.strip().splitlines()) <= 12
    engines = made("default").folder
    (tmp_path / "engines").symlink_to(engines)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    shape = Pipeline.load(engines).manifest.shape
    assert f"mask {shape.mask_shape} float32" in capsys.readouterr().out.splitlines()
