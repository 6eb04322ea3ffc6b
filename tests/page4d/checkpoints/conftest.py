"""Checkpoints that several files of tests load."""

import pytest

from tests.support.checkpoints import page4d_state, pi3_state, save_page4d, save_pi3
from tests.support.loads import WIDTH


@pytest.fixture(scope="session")
def pi3():
    return pi3_state(WIDTH, heads=False)


@pytest.fixture(scope="session")
def page4d():
    """By kind."""
    return {kind: page4d_state(kind, WIDTH) for kind in ("150", "2026", None)}


@pytest.fixture(scope="session")
def files(tmp_path_factory, pi3, page4d):
    """Paths of whole checkpoints, by what they hold."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {
        "pi3": folder / "model.safetensors",
        "150": folder / "checkpoint_150.pt",
        "2026": folder / "checkpoint_mask.pt",
        None: folder / "vggt.pt",
    }
    save_pi3(paths["pi3"], pi3)
    for kind, state in page4d.items():
        save_page4d(paths[kind], state, nested=kind is not None)
    return paths


@pytest.fixture(scope="session")
def small():
    """A whole Pi3 checkpoint without heads, 64 wide."""
    return pi3_state(64, encoder_depth=1, pairs=2, heads=False)
