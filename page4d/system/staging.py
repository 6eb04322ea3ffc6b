"""`Staging`: where a folder is written until it is complete, and how it replaces the old one, also after a kill.

A staging folder is called `.<name>-xxxxxxxx` and lies beside its target, or in it where the target cannot be renamed (a
mounted volume, the working directory, a parent that may not be written). It holds

- `page4d.lock`, which the writing command locks while it runs, so that other commands can tell whether it still does;
- `new`, the future content of the target;
- `old`, the old content, while two renames replace a folder where the file system cannot exchange two names;
- `swap.json`, in a staging folder inside its target: the entries to remove and to add, written when all of `new` is on
  the disk. From then on the next command that finds the folder abandoned completes the swap.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import msgspec

from page4d.system.exchange import exchange, is_mount_point, sync, sync_path

_LOCK, _NEW, _OLD, _SWAP = "page4d.lock", "new", "old", "swap.json"
_PURPOSE = b"page4d writes a folder here; the next command that writes the same one deletes what is left of it.\n"
_CANNOT_RENAME = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES)


class _Swap(msgspec.Struct, frozen=True):
    """The entries to remove from a folder and to add to it."""

    out: list[str]
    into: list[str]
    """The marker last: without it no reader takes the folder for complete."""


class Staging:
    """A folder being written.

    Attributes:
        target: the folder that it will replace; links resolved.
        new: where its content is written.
    """

    def __init__(self, target: pathlib.Path) -> None:
        """Delete what killed commands left for the same target, then create a staging folder.

        Raises:
            OSError: neither the target nor the folder around it can be written.
        """
        self.target = target
        self.inside = _has_to_be_inside(target)
        place = target if self.inside else target.parent
        tidy(target)
        self._lock: int | None
        self._folder, self._lock = _make(place, target)
        self.new = self._folder / _NEW
        self.new.mkdir(mode=0o755)

    def replace(self, marker: str | None = None) -> None:
        """Replace the target by `new`.

        At every moment it is the complete old or the complete new folder; where it cannot be renamed, it may also be
        a folder without its marker.

        Args:
            marker: name of the file by which readers know a complete folder.
        """
        self.new.chmod(0o755)
        sync(self.new)
        if self.inside:
            self._fill(marker)
            return
        try:
            self._rename()
        except OSError as error:
            if error.errno not in _CANNOT_RENAME or not self.target.is_dir():
                raise
            self._move_inside()
            self._fill(marker)
        else:
            sync_path(self.target.parent)

    def remove(self) -> None:
        """Delete the staging folder and its content. May be called twice."""
        _remove(self._folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _rename(self) -> None:
        if not self.target.is_dir() or not any(self.target.iterdir()):
            self.new.rename(self.target)  # an empty folder is replaced by a rename
        elif not exchange(self.new, self.target):
            self.target.rename(self._folder / _OLD)
            self.new.rename(self.target)

    def _move_inside(self) -> None:
        """Copy `new` into the target, whose entries can be renamed one by one where the target itself cannot."""
        folder, lock = _make(self.target, self.target)
        try:
            shutil.copytree(self.new, folder / _NEW, symlinks=True)
            sync(folder)
        except BaseException:
            _remove(folder)
            os.close(lock)
            raise
        self.remove()
        self._folder, self._lock, self.new = folder, lock, folder / _NEW

    def _fill(self, marker: str | None) -> None:
        known = {left.name for left in leftovers(self.target)}
        into = sorted((path.name for path in self.new.iterdir()), key=lambda name: (name == marker, name))
        out = sorted(
            (path.name for path in self.target.iterdir() if path.name not in known),
            key=lambda name: (name != marker, name),
        )
        content = msgspec.json.encode(_Swap(out, into))
        (self._folder / f"{_SWAP}.part").write_bytes(content)
        sync_path(self._folder / f"{_SWAP}.part")
        (self._folder / f"{_SWAP}.part").rename(self._folder / _SWAP)
        sync_path(self._folder)
        _finish(self._folder, self.target)


def leftovers(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Staging folders of a target, beside it and in it, whether or not a command still writes there."""
    pattern = re.compile(re.escape(_prefix(target)) + r"[a-z0-9_]{8}")
    for place in (target.parent, target):
        try:
            paths = list(place.iterdir())
        except OSError:
            continue
        for path in paths:
            if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and _is_ours(path):
                yield path


def tidy(target: pathlib.Path) -> None:
    """Delete what killed commands left, after completing an interrupted replacement; running commands' folders stay."""
    for folder in list(leftovers(target)):
        _recover(folder, target)


def _recover(folder: pathlib.Path, target: pathlib.Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        _remove(folder)  # empty: the command was killed before it made the lock
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _OLD).is_dir() and not target.exists():
            (folder / _OLD).rename(target)
        if (folder / _SWAP).is_file() and folder.parent == target:
            _finish(folder, target)
        _remove(folder)
    except OSError:  # its command runs, or the file system has no locks, or it belongs to another user
        return
    finally:
        os.close(lock)


def _finish(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Complete the swap of `swap.json`, from where it was interrupted."""
    swap = msgspec.json.decode((folder / _SWAP).read_bytes(), type=_Swap)
    old, new = folder / _OLD, folder / _NEW
    old.mkdir(exist_ok=True)
    if len(os.listdir(new)) == len(swap.into):  # nothing was moved in yet, so entries of these names are the old ones
        for name in swap.out:
            if os.path.lexists(target / name):
                (target / name).rename(old / name)
    sync_path(target)
    for name in swap.into:
        if os.path.lexists(new / name) and not os.path.lexists(target / name):
            (new / name).rename(target / name)
    sync_path(target)


def _prefix(target: pathlib.Path) -> str:
    return f".{os.fsdecode(os.fsencode(target.name)[:200])}-"  # a name may have 255 bytes


def _make(place: pathlib.Path, target: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A staging folder and its lock, held."""
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(dir=place, prefix=_prefix(target)))
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # another command has just deleted it as abandoned
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:  # a file system without locks: only this command will delete it
            pass
        os.write(lock, _PURPOSE)
        return folder, lock


def _has_to_be_inside(target: pathlib.Path) -> bool:
    if not target.is_dir():
        return False
    try:
        is_here = os.path.samefile(target, os.curdir)  # a shell that stands in it would stay in the old folder
    except OSError:  # the working directory was deleted
        is_here = False
    return is_here or is_mount_point(target) or not os.access(target.parent, os.W_OK | os.X_OK)


def _is_ours(folder: pathlib.Path) -> bool:
    try:
        names = set(os.listdir(folder))
    except OSError:  # somebody else's
        return False
    return not names or (_LOCK in names and names <= {_LOCK, _NEW, _OLD, _SWAP, f"{_SWAP}.part"})


def _remove(folder: pathlib.Path) -> None:
    """Delete a staging folder; its lock last, so that the next command recognises what is left."""
    with contextlib.suppress(OSError):  # it is gone already, or holds something that may not be deleted
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
        if set(os.listdir(folder)) <= {_LOCK}:  # else something could not be deleted: the next command tries again
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
