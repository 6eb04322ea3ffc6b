"""Text from outside (names of files, of cameras, of tensors) made safe for a terminal and a JSON document."""

from __future__ import annotations

import re
from typing import Any

import msgspec

# C0 and C1 controls but tab and line feed, lone surrogates (bytes of a name that are no text), marks that turn the
# direction of writing
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with terminal control characters and marks of direction escaped: ESC becomes `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def listed(names: list[str], most: int) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """A number of things: `1 window`, `2 windows`. For nouns whose plural ends in s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_text(name: str) -> str:
    """A string that UTF-8 can encode: undecodable bytes of a file name are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def encodable(value: Any) -> Any:
    """A value of dicts, lists and strings with strings that UTF-8 can encode."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, (list, tuple)) else value


def json_document(value: Any) -> bytes:
    """A record as a JSON document of several lines; undecodable bytes of file names are escaped, NaN becomes null."""
    text = msgspec.json.encode(encodable(msgspec.to_builtins(value)))
    return msgspec.json.format(text, indent=1) + b"\n"
