"""A finished run in more formats: what is added to its folder or written to another, and what leaves it as it was."""

import pytest

from page4d_engines.commands.convert import convert_command
from page4d_engines.results.summary import finished, read_summary
from tests.support.commands import inside
from tests.support.exports import content
from tests.support.true_run import write_true_run


def convert(*arguments):
    """`page4d convert` in this process."""
    return inside(*arguments, function=convert_command)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of two windows with worlds of their own."""
    return write_true_run(tmp_path_factory.mktemp("run"), form="vggt", T=4, V=1, window=2, mask=True, orbit=0.05)


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, whose clip lies where it was."""
    import shutil

    shutil.copytree(original.out, tmp_path / "out")
    return tmp_path / "out"


def test_formats_are_added_to_the_run_and_listed(run):
    before, summary = content(run), read_summary(run / "summary.json")
    done = convert(run, "--formats", "npz")
    assert done.returncode == 0, done.stderr
    after = content(run)
    npz = {f"{window.name}/scene.npz" for window in summary.windows}
    assert set(after) == set(before) | npz
    changed = {path for path in before if before[path] != after[path]}
    assert changed <= {"summary.json", "report.html"}
    written = read_summary(run / "summary.json")
    assert set(written.format_files) == npz and written.made_by.formats == ("ply", "npz")
    assert all(path in (run / "report.html").read_text() for path in npz)
    # the command that would have written the same keeps it, and another one may replace it
    assert finished(run, written.made_by) is not None
    assert finished(run, summary.made_by) is None
