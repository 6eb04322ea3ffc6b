"""The four parts: each imports only what stands below it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"page4d_export": "export", "page4d_engines": "engines", "page4d_plugins": "plugins", "page4d": "."}
PARTS = list(FOLDERS)


def imported(path):
    """Top-level packages that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("part", PARTS)
def test_imports_go_one_way(part):
    files = list((ROOT / FOLDERS[part] / part).rglob("*.py"))
    assert len(files) > 10
    above = set(PARTS[: PARTS.index(part)])
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for path in files for name in imported(path) if name in above]
    assert not wrong
