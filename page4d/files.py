"""Files and folders that appear whole or not at all, what `-o` may name, and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file

from page4d.errors import UsageError
from page4d.system.interrupts import held_interrupts
from page4d.system.plain_text import as_text, listed
from page4d.system.staging import Staging, leftovers, tidy

_MOST_NAMED = 4  # entries of a folder that an error names


@dataclass(frozen=True)
class OutputKind:
    """What a command writes, and how an earlier result is distinguished from someone else's folder.

    Attributes:
        description: as errors name it: `an engine folder`.
        marker: name of the file that a complete result has.
        files: paths of all files of the result in a folder, relative to it, with `/`; None where the marker's content
            is not this project's.
    """

    description: str
    marker: str
    files: Callable[[pathlib.Path], Collection[str] | None]


NEW_FOLDER = OutputKind("a new or empty folder", "", lambda folder: None)
"""Nothing that is there may be replaced."""


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Write a file: readers see all of it or what was there before, even after a power failure."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def save_tensors(path: pathlib.Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a .safetensors file that other users may read."""
    save_file(dict(tensors), path)
    path.chmod(0o644)


def refuse_foreign(
    folder: pathlib.Path, kind: OutputKind = NEW_FOLDER, inputs: Mapping[str, pathlib.Path] | None = None
) -> None:
    """Raise unless `-o folder` may be written: it does not exist, is empty, or holds an earlier result alone.

    Args:
        folder: as on the command line.
        kind: of result that may be replaced.
        inputs: paths that the command reads, by their description: `the frames`.

    Raises:
        UsageError: it holds something else, is no folder, cannot be written, or lies in an input or around an input.
    """
    target = _target(folder)
    for what, path in (inputs or {}).items():
        _refuse_input(folder, target, what, pathlib.Path(os.path.realpath(path)))
    if not target.parent.is_dir():
        if target.parent.exists():
            raise UsageError("-o lies in a file", got=folder, allowed="a folder in a folder")
        raise UsageError("-o lies in a folder that does not exist", got=folder, hint=f"mkdir -p {target.parent}")
    if not os.access(target if target.is_dir() else target.parent, os.W_OK | os.X_OK):
        raise UsageError(
            "-o cannot be written",
            got=folder,
            allowed="a folder that you may write to, on a disk that is not read-only",
        )
    tidy(target)
    files = _files(target, kind)
    if foreign := _foreign(target, files):
        named = listed(foreign, _MOST_NAMED)
        if kind is NEW_FOLDER:
            raise UsageError("-o is not empty", got=f"{folder}, with {named}", allowed="a new or empty folder")
        what = f"-o {'names something that is not' if files is None else 'holds more than'} {kind.description}"
        allowed = f"a new folder, an empty one, or {kind.description} and nothing else"
        raise UsageError(f"{what}, and it would be replaced", got=f"{folder}, with {named}", allowed=allowed)


@contextlib.contextmanager
def staged(folder: pathlib.Path, kind: OutputKind | None = None) -> Iterator[pathlib.Path]:
    """A folder to write into, which replaces `folder` at the end; on any error, or Ctrl-C, nothing of it is left.

    At every moment `folder` is complete, the old one or the new one, even if the process is killed or the power fails.
    Where it cannot be renamed (a mounted volume, the working directory), it has no marker while its entries are moved,
    and the next command that writes it finishes the move.

    Args:
        folder: the result's final place; its content is replaced.
        kind: what `folder` must hold. Checked again before it is replaced, since other programs may have written to it
            meanwhile. None: anything.

    Raises:
        UsageError: something else has been put there; it is left alone, and the error names the folder of the result.
    """
    staging: Staging | None = None
    try:
        with held_interrupts():  # from here on there is a folder to remove
            staging = Staging(_target(folder))
        yield staging.new
        with held_interrupts():
            if kind is not None and (foreign := _foreign(staging.target, _files(staging.target, kind))):
                spare = _spare(staging.target)
                staging.new.chmod(0o755)
                staging.new.rename(spare)
                raise UsageError(
                    f"-o was changed while this ran: it holds {foreign[0]}, which would be deleted",
                    got=folder,
                    hint=f"the result is in {spare}",
                )
            staging.replace(None if kind is None else kind.marker or None)
    finally:
        if staging is not None:
            try:
                with held_interrupts():
                    staging.remove()
            except KeyboardInterrupt:
                staging.remove()  # the signal came before it could be held
                raise


def link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A hard link to a file, or a copy where the disk has none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: pathlib.Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _target(folder: pathlib.Path) -> pathlib.Path:
    """The folder of `-o`, links resolved.

    Raises:
        UsageError: it is no folder: a file, a FIFO, a link to nothing or to itself.
    """
    target = pathlib.Path(os.path.realpath(folder))
    if os.path.islink(folder) and not folder.exists():
        raise UsageError(
            "-o is a link that leads nowhere",
            got=f"{folder} -> {os.readlink(folder)}",
            allowed="a folder, or a link to one",
        )
    try:
        is_something_else = target.exists() and not target.is_dir()
    except OSError as error:  # a name that is too long, a parent folder that may not be entered
        raise UsageError(f"-o cannot be written: {error.strerror}", got=folder) from None
    if is_something_else:
        raise UsageError("-o is not a folder", got=folder, allowed="a new folder, or an empty one")
    return target


def _refuse_input(folder: pathlib.Path, target: pathlib.Path, what: str, path: pathlib.Path) -> None:
    if target == path:
        raise UsageError(f"-o is {what}, which this reads", got=folder, allowed="another folder")
    if target.is_relative_to(path):
        raise UsageError(
            f"-o lies inside {what}, which this reads", got=f"{folder}, in {path}", allowed="a folder outside"
        )
    if path.is_relative_to(target) and target.is_dir():
        raise UsageError(f"-o holds {what}, which this reads", got=f"{path}, in {folder}", allowed="another folder")


def _files(target: pathlib.Path, kind: OutputKind) -> Collection[str] | None:
    """The files of an earlier result; None where there is none."""
    if not (target / kind.marker).is_file():
        return None
    files = kind.files(target)
    return None if files is None else frozenset(map(as_text, (*files, kind.marker)))  # as JSON documents have names


def _foreign(target: pathlib.Path, files: Collection[str] | None) -> list[str]:
    """Entries of a folder that no earlier result has, relative to it; a folder with none of its files counts as one."""
    if not target.is_dir():
        return []
    parts = [path.split("/") for path in files or ()]
    folders = {"/".join(part[:depth]) for part in parts for depth in range(1, len(part))}
    staging_names = {path.name for path in leftovers(target)}

    def strangers(place: str) -> Iterator[str]:
        with os.scandir(target / place) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}" if place else entry.name
                name = as_text(path)
                if entry.is_dir(follow_symlinks=False) and name in folders:
                    yield from strangers(path)
                    continue
                is_known = entry.is_file(follow_symlinks=False) and name in (files or ())
                if path not in staging_names and not is_known:
                    yield name

    return sorted(strangers(""))


def _spare(target: pathlib.Path) -> pathlib.Path:
    """A free name beside a folder, or in it."""
    place = target.parent if os.access(target.parent, os.W_OK | os.X_OK) else target
    return next(path for number in range(1, 1 << 20) if not os.path.lexists(path := place / f"{target.name}-{number}"))
