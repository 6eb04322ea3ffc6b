"""Reading a user's JSON file: any of JSON's encodings; plain values, or one kind of error."""

from __future__ import annotations

import json
import os
import pathlib
import stat
from typing import Any

from page4d.errors import UsageError
from page4d.system.strict_json import distinct_names

_MOST_BYTES = 64 * 2**20  # a rig of a thousand cameras takes one MB


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file: UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    NaN and infinities are returned as such: the caller checks that numbers are finite.

    Raises:
        UsageError: no such file, or it cannot be read, is no regular file (a FIFO would never end), is over 64 MB, or
            not JSON: a name twice in one object, brackets nested too deep, and integers of thousands of digits count as
            that.
    """
    try:
        content = _read(path)
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return json.loads(content.decode(json.detect_encoding(content)), object_pairs_hook=distinct_names)
    except RecursionError:
        raise UsageError(f"{path} is not JSON that can be read: its brackets are nested too deep") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
        raise UsageError(f"{path} is not JSON: {error}") from None


def _read(path: pathlib.Path) -> bytes:
    # O_NONBLOCK: opening a FIFO would wait for somebody to write into it
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError("Is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(f"it is larger than {_MOST_BYTES // 2**20} MB")
    return content
