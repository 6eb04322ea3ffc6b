"""A file of an engine folder, opened only if it is a regular file inside: no FIFO, no link that leads elsewhere."""

from __future__ import annotations

import os
import pathlib
import stat
from typing import BinaryIO

from page4d.errors import EngineError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_COPY = "copy the folder whole, or page4d-export again"


def path_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a regular file in an engine folder.

    The folder itself may be a link, and links inside it may lead to other files inside.

    Args:
        folder: the engine folder.
        name: of the file, relative to it.

    Raises:
        EngineError: there is no such file, it is a folder, FIFO, socket or device, or it lies outside the folder.
    """
    path = folder / name
    try:
        real, root = os.path.realpath(path, strict=True), os.path.realpath(folder, strict=True)
        mode = os.stat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise EngineError(f"the engine folder lacks {name}", got=folder, hint=_COPY) from None
    except (OSError, ValueError) as error:  # a name that no file can have; links in a circle
        raise _unreadable(name, error, path) from None
    if os.path.commonpath((real, root)) != root:
        hint = "copy the folder with the files that its links lead to: cp -rL"
        raise EngineError(
            f"{name} leads out of the engine folder", got=real, allowed="links to what is inside", hint=hint
        )
    if not stat.S_ISREG(mode):
        raise _no_file(name, mode, path)
    return path


def open_inside(folder: pathlib.Path, name: str) -> BinaryIO:
    """Open a regular file of an engine folder to be read; arguments and errors as `path_inside`'s."""
    path = path_inside(folder, name)
    try:  # a FIFO that replaced the file meanwhile is opened without blocking, and refused
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise _unreadable(name, error, path) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _no_file(name, mode, path)
    return os.fdopen(descriptor, "rb")


def _no_file(name: str, mode: int, path: pathlib.Path) -> EngineError:
    kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
    return EngineError(f"{name} is {kind}", got=path, allowed="a file", hint=_COPY)


def _unreadable(name: str, error: Exception, path: pathlib.Path) -> EngineError:
    return EngineError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}", got=path, hint=_COPY)
