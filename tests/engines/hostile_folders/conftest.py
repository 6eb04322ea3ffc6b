"""Engine folders to damage."""

import pathlib
import shutil

import pytest


@pytest.fixture
def folder(made, tmp_path):
    return pathlib.Path(shutil.copytree(made().folder, tmp_path / "engines"))


@pytest.fixture
def golden(checked, tmp_path):
    return pathlib.Path(shutil.copytree(checked(), tmp_path / "engines"))
