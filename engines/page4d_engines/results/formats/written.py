"""`Written`: what a writer of a format says it has done."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """Files of a scene, and what is not in them.

    Attributes:
        files: that were written.
        warnings: sentences.
    """

    files: list[pathlib.Path]
    warnings: tuple[str, ...] = ()
