"""Folders and files that appear whole or not at all, and what `-o` may name."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file

from page4d.errors import UsageError
from page4d.files import (
    NEW_FOLDER,
    OutputKind,
    link_or_copy,
    refuse_foreign,
    save_tensors,
    sha256,
    staged,
    write_atomically,
)
from page4d.system.staging import Staging


def listed(folder):
    """The kind that these tests write: `mark.json` is a list of its files."""
    try:
        files = json.loads((folder / "mark.json").read_bytes())
    except (ValueError, RecursionError):
        return None
    return files if isinstance(files, list) else None


KIND = OutputKind("a listed folder", "mark.json", listed)


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "mark.json").write_text(json.dumps([name.replace("__", "/") for name in files]))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def volume(tmp_path):
    """A folder that is a mount point, as a container's volume is; a bind mount, on the disk of what is around it."""
    source, target = tmp_path / "source", tmp_path / "volume"
    source.mkdir()
    target.mkdir()
    if subprocess.run(["mount", "--bind", source, target], capture_output=True).returncode:
        pytest.skip("only root can mount a folder")
    yield target
    subprocess.run(["umount", target], check=True)


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


def test_a_name_of_the_greatest_length_and_one_that_is_no_text(tmp_path):
    for name in ("x" * 255, "[a-z]*", os.fsdecode(b"bytes \xff")):
        with staged(tmp_path / name, KIND) as folder:
            write(folder, new="new")
        with staged(tmp_path / name, KIND) as folder:
            write(folder, newer="newer")
        assert contents(tmp_path / name)["newer"] == "newer"
    assert len(os.listdir(tmp_path)) == 3


def test_without_an_exchange_of_names_two_renames_do_it(tmp_path, monkeypatch):
    monkeypatch.setattr("page4d.system.staging.exchange", lambda first, second: False)
    write(tmp_path / "out", a="old", b="old")
    with staged(tmp_path / "out", KIND) as folder:
        write(folder, a="new")
    assert contents(tmp_path / "out") == {"a": "new", "mark.json": '["a"]'} and os.listdir(tmp_path) == ["out"]


def test_killed_between_two_renames_the_old_folder_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("page4d.system.staging.exchange", lambda first, second: False)
    write(tmp_path / "out", a="old")
    staging = Staging(tmp_path / "out")
    write(staging.new, a="new")
    monkeypatch.setattr(pathlib.Path, "rename", once(pathlib.Path.rename))
    with pytest.raises(InterruptedError):
        staging.replace()
    monkeypatch.undo()
    os.close(staging._lock)  # as the end of the process does
    assert not (tmp_path / "out").exists()
    refuse_foreign(tmp_path / "out", KIND)
    assert contents(tmp_path / "out")["a"] == "old" and os.listdir(tmp_path) == ["out"]


def once(function):
    """A function that works once, and then fails."""
    calls = []

    def called(*arguments):
        if calls:
            raise InterruptedError
        calls.append(arguments)
        return function(*arguments)

    return called


def test_a_mounted_volume_is_filled_where_it_is(volume):
    for number in range(3):
        refuse_foreign(volume, KIND)
        with staged(volume, KIND) as folder:
            assert folder.parent.parent == volume
            write(folder, a=str(number), sub__b=str(number))
        assert contents(volume) == {"a": str(number), "sub/b": str(number), "mark.json": '["a", "sub/b"]'}
        assert sorted(os.listdir(volume)) == ["a", "mark.json", "sub"]
    (volume / "stranger").write_text("mine")
    with pytest.raises(UsageError, match="holds more than a listed folder"):
        refuse_foreign(volume, KIND)


@pytest.mark.parametrize("moved", range(10))
def test_whoever_finds_a_half_filled_volume_finishes_it(volume, monkeypatch, moved):
    """Killed after each number of moves: only a whole folder has a marker, and files that others put there stay."""
    write(volume, a="old", c="old", sub__b="old")
    staging = Staging(volume)
    write(staging.new, a="new", sub__b="new")
    rename, moves = pathlib.Path.rename, []

    def counted(self, target):
        if len(moves) >= moved:
            raise InterruptedError
        moves.append(self)
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", counted)
    with contextlib.suppress(InterruptedError):
        staging.replace("mark.json")
    monkeypatch.undo()
    os.close(staging._lock)
    now = {name: text for name, text in contents(volume).items() if not name.startswith(".")}
    whole = (now.get("a"), now.get("c"), now.get("sub/b")) in (("old", "old", "old"), ("new", None, "new"))
    assert whole or not (volume / "mark.json").exists()
    (volume / "stranger").write_text("mine")
    with pytest.raises(UsageError, match="holds more than"):
        refuse_foreign(volume, KIND)
    assert (volume / "stranger").read_text() == "mine"
    (volume / "stranger").unlink()
    assert contents(volume)["a"] == ("old" if moved == 0 else "new")
    refuse_foreign(volume, KIND)
    assert sorted(os.listdir(volume)) == ["a", "mark.json", "sub"] if moved else ["a", "c", "mark.json", "sub"]


def test_the_working_directory_stays_the_one_that_a_shell_stands_in(tmp_path, monkeypatch):
    write(tmp_path / "here", a="old")
    monkeypatch.chdir(tmp_path / "here")
    before = os.stat(".").st_ino
    with staged(pathlib.Path("."), KIND) as folder:
        write(folder, a="new")
    assert os.stat(tmp_path / "here").st_ino == before and pathlib.Path("a").read_text() == "new"


def test_links_lead_to_the_folder_that_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for number in range(2):
        refuse_foreign(tmp_path / "link", KIND)
        with staged(tmp_path / "link", KIND) as folder:
            write(folder, a=str(number))
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "real")["a"] == "1"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_what_killed_commands_left_is_deleted_and_what_running_ones_write_is_not(tmp_path):
    left, running, other = (Staging(tmp_path / name) for name in ("out", "out", "out-2"))
    (left.new / "gigabytes").write_text("x")
    os.close(left._lock)
    (tmp_path / ".out-stranger").mkdir()
    (tmp_path / ".out-stranger" / "thesis.tex").write_text("precious")
    (tmp_path / ".out-a1b2c3d4").write_text("a file")
    with staged(tmp_path / "out") as folder:
        assert not left.new.exists() and running.new.exists()
        (folder / "a").write_text("a")
    assert not left.new.exists() and running.new.exists() and other.new.exists()
    assert (tmp_path / ".out-stranger" / "thesis.tex").read_text() == "precious" and (
        tmp_path / ".out-a1b2c3d4"
    ).exists()
    running.remove()
    other.remove()
    assert sorted(os.listdir(tmp_path)) == [".out-a1b2c3d4", ".out-stranger", "out"]


def test_a_disk_without_locks_is_written_and_nothing_on_it_is_taken_for_abandoned(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    running = Staging(tmp_path / "out")
    with staged(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    assert running.new.exists() and (tmp_path / "out" / "a").exists()


def test_what_cannot_be_deleted_keeps_its_mark_for_the_next_command(tmp_path, monkeypatch):
    staging = Staging(tmp_path / "out")
    (staging.new / "a").write_text("a")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as with no file descriptor left
    staging.remove()
    monkeypatch.undo()
    assert staging.new.exists()
    with staged(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]


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
    link_or_copy(path, tmp_path / "second name")
    assert (tmp_path / "second name").read_bytes() == b"two"


def test_only_earlier_results_are_replaced(tmp_path):
    refuse_foreign(tmp_path / "new")
    refuse_foreign(tmp_path)  # empty
    write(tmp_path / "ours", a="a", sub__b="b")
    refuse_foreign(tmp_path / "ours", KIND)
    with pytest.raises(UsageError, match=r"-o is not empty\n  got: .*ours, with a, mark.json, sub"):
        refuse_foreign(tmp_path / "ours")
    with pytest.raises(UsageError, match=r"folder that does not exist\n.*\n  try: +mkdir -p .*new"):
        refuse_foreign(tmp_path / "new" / "b")


@pytest.mark.parametrize("content", ['{"name": "My PWA"}', "", "not JSON", '"a"', "[" * 10**5])
def test_a_marker_of_somebody_else_marks_nothing(tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mark.json").write_text(content)
    with pytest.raises(UsageError, match="not a listed folder, and it would be replaced"):
        refuse_foreign(tmp_path / "out", KIND)


@pytest.mark.parametrize(
    "stranger", ["file", "folder", "nested", "link", "link in the place of a file", "fifo in the place of a file"]
)
def test_a_result_with_something_of_somebody_elses_is_not_replaced(tmp_path, stranger):
    out = tmp_path / "out"
    write(out, a="a", sub__b="b")
    if stranger == "file":
        (out / "thesis.tex").write_text("precious")
    elif stranger == "folder":
        (out / "empty").mkdir()
    elif stranger == "nested":
        (out / "sub" / "thesis.tex").write_text("precious")
    elif stranger == "link":
        (out / "link").symlink_to(tmp_path)
    else:
        (out / "a").unlink()
        (out / "a").symlink_to(tmp_path / "x") if stranger.startswith("link") else os.mkfifo(out / "a")
    with pytest.raises(UsageError, match="holds more than a listed folder, and it would be replaced"):
        refuse_foreign(out, KIND)


def test_what_comes_into_a_result_while_a_command_runs_is_not_deleted(tmp_path):
    write(tmp_path / "out", a="old")
    with (
        pytest.raises(
            UsageError, match=r"-o was changed while this ran: it holds notes.txt(.|\n)*the result is in .*out-1"
        ),
        staged(tmp_path / "out", KIND) as folder,
    ):
        write(folder, a="new")
        (tmp_path / "out" / "notes.txt").write_text("precious")
    assert contents(tmp_path / "out") == {"a": "old", "mark.json": '["a"]', "notes.txt": "precious"}
    assert contents(tmp_path / "out-1")["a"] == "new"
    with pytest.raises(UsageError, match="changed"), staged(tmp_path / "new", NEW_FOLDER) as folder:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "notes.txt").write_text("precious")
    assert sorted(os.listdir(tmp_path)) == ["new", "new-1", "out", "out-1"]


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("file", "is not a folder"),
        ("fifo", "is not a folder"),
        ("dangling", "leads nowhere"),
        ("loop", "leads nowhere"),
        ("file/x", "in a file"),
    ):
        with pytest.raises(UsageError, match=f"-o .*{message}"):
            refuse_foreign(tmp_path / name, KIND)
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        refuse_foreign(tmp_path / ("x" * 300), KIND)


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everything
    with pytest.raises(UsageError, match="-o cannot be written"):
        refuse_foreign(tmp_path / "out", KIND)


def test_a_folder_in_one_that_may_not_be_written_is_filled_where_it_is(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(out, a="old")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    refuse_foreign(out, KIND)
    before = out.stat().st_ino
    with staged(out, KIND) as folder:
        assert folder.parent.parent == out
        write(folder, a="new")
    assert out.stat().st_ino == before and contents(out)["a"] == "new" and sorted(os.listdir(out)) == ["a", "mark.json"]


def test_nothing_is_written_over_inputs_or_into_them(tmp_path):
    frames = tmp_path / "clip" / "frames"
    (frames / "cam0").mkdir(parents=True)
    inputs = {"the frames": frames}
    for name, message in (
        ("clip/frames", "is the frames"),
        ("clip/frames/out", "lies inside the frames"),
        ("clip/frames/cam0", "lies inside"),
        ("clip", "holds the frames"),
    ):
        with pytest.raises(UsageError, match=message):
            refuse_foreign(tmp_path / name, KIND, inputs)
    (tmp_path / "other").symlink_to(frames)
    with pytest.raises(UsageError, match="lies inside the frames"):
        refuse_foreign(tmp_path / "other" / "out", KIND, inputs)
    refuse_foreign(tmp_path / "clip" / "out", KIND, inputs)
