"""Names of files as text: to print, to compare, to sort."""

from __future__ import annotations

import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence


def readable(name: str | os.PathLike[str]) -> str:
    r"""A name that UTF-8 can encode: bytes that are none, which Python keeps as lone surrogates, become `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def composed(name: str) -> str:
    """A form in which names that look alike are equal: macOS stores an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts numbers inside names by their value."""
    parts = ((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))
    return (*parts, (-1, name))


def listed_files(paths: Iterable[pathlib.Path], most: int = 4) -> str:
    """The names of the first few of some files or folders, and how many more there are."""
    return listed([readable(path.name) for path in paths], most)


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
