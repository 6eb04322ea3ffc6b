"""Files and folders that appear whole or not at all, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file

from page4d.errors import UsageError


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename: readers see all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def save_tensors(path: pathlib.Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a .safetensors file that others may read, too."""
    save_file(dict(tensors), path)
    path.chmod(0o644)


def refuse_foreign(folder: pathlib.Path, marker: str | None = None, kind: str = "") -> None:
    """Raise unless `-o folder` is free to be written: not there, empty, or, with a `marker`, an earlier result, which holds a file of that name.

    Raises:
        UsageError: it holds something else, or the folder around it does not exist.
    """
    taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if taken and marker is None:
        raise UsageError("-o is not empty", got=folder, allowed="a new or empty folder")
    if taken and marker is not None and not (folder / marker).is_file():
        raise UsageError(f"-o names something that is not {kind}, and it would be replaced", got=folder, allowed=f"a new folder, an empty one, or {kind}")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise UsageError("-o lies in a folder that does not exist", got=folder, hint=f"mkdir -p {parent}")


@contextlib.contextmanager
def staged(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `folder`, which takes its place at the end; on any error, or Ctrl-C, nothing of it is left."""
    folder = folder.absolute()
    staging = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield staging
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def sha256(path: pathlib.Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
