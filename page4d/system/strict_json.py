"""JSON that every reader reads in the same way, of a size that is read at once.

`engines/cpp/src/files/json_reader.cpp` has the same limits.
"""

from __future__ import annotations

import collections
import json
from typing import Any

LARGEST = 1 << 24
"""Bytes of a document."""
DEEPEST = 100
"""Objects and arrays inside one another."""
_LEAST, _MOST = -(2**63), 2**63 - 1


def require_strict(content: bytes) -> None:
    """Refuse a document that is no JSON, or that two readers may read in two ways.

    Raises:
        ValueError: it is malformed, no UTF-8 or begins with a byte order mark; an object has a key twice, something
            lies deeper than `DEEPEST`, a whole number is not one of 64 bits, or a number is infinite or none.
    """
    try:
        document = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=distinct_names,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    containers = _containers([document])
    for _ in range(DEEPEST):
        containers = [inner for container in containers for inner in _containers(container)]
    if containers:
        raise ValueError("JSON is nested too deeply")


def _containers(values: Any) -> list[Any]:
    inner = values.values() if isinstance(values, dict) else values
    return [value for value in inner if isinstance(value, dict | list)]


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a document, for `json.loads`.

    Raises:
        ValueError: it has a name twice.
    """
    if len(mapping := dict(pairs)) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"JSON has a key twice: {next(name[:100] for name, count in counts.items() if count > 1)}")
    return mapping


def _whole(text: str) -> int:
    number = int(text) if len(text) <= len(str(_LEAST)) else None
    if number is None or not _LEAST <= number <= _MOST:
        raise ValueError("JSON has a whole number of more than 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("JSON has a number that is too large")
    return number


def _constant(text: str) -> None:
    raise ValueError(f"JSON is malformed: {text} is no number")
