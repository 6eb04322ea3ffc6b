"""Clips on disk."""

import shutil

import pytest

from page4d_export.sample_scene.clip import render, save
from tests.support.clips import H, T, V, W


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A rendered clip on disk, and the clip."""
    clip, folder = render(T, V, W, H), tmp_path_factory.mktemp("saved") / "clip"
    save(clip, folder)
    return clip, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved[1], tmp_path / "clip")


@pytest.fixture
def clip(tmp_path):
    """A smaller one that a test may spoil: 3 timesteps, 2 cameras."""
    save(render(3, 2, 20, 16), tmp_path / "clip")
    return tmp_path / "clip"
