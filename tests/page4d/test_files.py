"""Folders and files that appear whole or not at all."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from page4d.errors import UsageError
from page4d.files import refuse_foreign, save_tensors, sha256, staged, write_atomically


def test_a_staged_folder_replaces_the_old_one_at_the_end(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with staged(target) as folder:
        (folder / "new").write_text("new")
        assert os.listdir(target) == ["old"]
    assert os.listdir(target) == ["new"] and os.listdir(tmp_path) == ["out"]
    assert os.stat(target).st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_stage_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(error), staged(target) as folder:
        (folder / "half").write_text("half")
        raise error
    assert os.listdir(target) == ["old"] and os.listdir(tmp_path) == ["out"]


def test_files_are_replaced_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(tmp_path) == ["file"]
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_tensors(tmp_path / "t.safetensors", tensors)
    np.testing.assert_array_equal(load_file(tmp_path / "t.safetensors")["x"], tensors["x"])
    for name in os.listdir(tmp_path):
        assert os.stat(tmp_path / name).st_mode & 0o044 == 0o044
    assert sha256(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"  # of "two", by sha256sum


def test_only_earlier_results_are_replaced(tmp_path):
    refuse_foreign(tmp_path / "new")
    refuse_foreign(tmp_path)  # empty
    (tmp_path / "manifest.json").write_text("{}")
    refuse_foreign(tmp_path, "manifest.json", "an engine folder")
    with pytest.raises(UsageError, match="-o is not empty"):
        refuse_foreign(tmp_path)
    with pytest.raises(UsageError, match="not the output of a run, and it would be replaced"):
        refuse_foreign(tmp_path, "summary.json", "the output of a run")
    with pytest.raises(UsageError, match="folder that does not exist"):
        refuse_foreign(tmp_path / "a" / "b")
