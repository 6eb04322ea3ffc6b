"""Runs to look at: small, true, with a mask and three timesteps; or with windows that have worlds of their own."""

import pytest

from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.world.similarity import Similarity
from tests.support.true_run import write_true_run

pytest.importorskip("viser")
SIZE = (84, 112)


@pytest.fixture(scope="package")
def true_run(tmp_path_factory):
    return write_true_run(tmp_path_factory.mktemp("run"), "vggt", T=3, V=2, size=SIZE, mask=True)


@pytest.fixture(scope="package")
def run(true_run):
    return FinishedRun.open(true_run.out)


@pytest.fixture(scope="package")
def apart(tmp_path_factory):
    """Two windows of two timesteps, each with a world of its own."""
    worlds = [Similarity.identity(), Similarity(2.0, Similarity.identity().rotation, Similarity.identity().translation)]
    folder = tmp_path_factory.mktemp("apart")
    return FinishedRun.open(write_true_run(folder, "pi3", T=4, V=1, window=2, size=SIZE, worlds=worlds).out)
