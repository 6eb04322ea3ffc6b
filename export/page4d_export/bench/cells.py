"""Texts that the tables of several benchmarks have in common."""

from __future__ import annotations

from collections.abc import Mapping


def extremes(spread: tuple[float, float], digits: int = 2) -> str:
    """The smallest and the largest of some values, as `0.97 .. 1.05`."""
    low, high = spread
    return f"{low:.{digits}f} .. {high:.{digits}f}"


def versions_line(versions: Mapping[str, str]) -> str:
    """Packages and their versions, in a line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
