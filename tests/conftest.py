"""Fixtures that tests of all parts share."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def real_clip() -> pathlib.Path:
    """A filmed clip, 12 times by 4 cameras, with masks and cameras; it lies beside the repository and is not part of it."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "clip"
    if not (folder / "frames").is_dir():
        pytest.skip(f"no filmed clip at {folder}")
    return folder
