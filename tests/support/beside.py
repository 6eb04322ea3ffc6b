"""What may lie in `shared/` beside the repository: the public code's values, and tables of the published files.

It is not part of the repository: without it these tests are skipped, here and nowhere else.
"""

import json
import pathlib

import pytest

from tests.support.modules import module_at

SHARED = pathlib.Path(__file__).parents[3] / "shared"


def golden_recipe(name):
    """The module `golden/<name>.py`, which makes weights and inputs and checks results."""
    path = SHARED / "golden" / f"{name}.py"
    if not path.is_file():
        pytest.skip(f"no reference values at {path.parent}")
    return module_at(path)


def key_table(name):
    """Names and shapes of a published file's tensors."""
    path = SHARED / "checkpoints" / f"{name}.keys.json"
    if not path.is_file():
        pytest.skip(f"no table of the real checkpoint at {path}")
    return {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}
