"""Names for the results of many folders of frames: each folder's own, or its path where two have the same."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from page4d.errors import UsageError
from page4d_engines.clip.names import readable
from page4d_engines.results.summary import REPORT, SUMMARY


def result_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """A name for each folder or video, in their order: all different, also where upper and lower case are one.

    The last part of each path. Where two are the same, all are named by the parts of their paths that differ from the
    folder around all of them, joined by `-`: `a/photos` and `b/photos` become `a-photos` and `b-photos`.

    Raises:
        UsageError: the same folder twice, or paths whose names still are the same or cannot be those of a folder.
    """
    whole = [pathlib.Path(os.path.abspath(path)) for path in paths]
    names = [path.stem if path.is_file() else path.name for path in whole]
    if _repeated(names) is not None and len(set(whole)) == len(whole):
        around = os.path.commonpath([path.parent for path in whole])
        above = ["-".join(path.parent.relative_to(around).parts) for path in whole]
        names = ["-".join(filter(None, pair)) for pair in zip(above, names, strict=True)]
    if (places := _repeated(names)) is not None:
        first, second = (readable(paths[place]) for place in places)
        raise UsageError(
            "the results of two folders would have one name",
            got=f"{first} and {second}: {readable(names[places[1]])}",
            hint="a page4d-run for each, with an -o of its own",
        )
    for path, name in zip(paths, names, strict=True):
        if not name or name.casefold() in (SUMMARY, REPORT):
            raise UsageError(
                "a folder has no name that its results could have",
                got=readable(path),
                hint="rename it, or a link to it",
            )
    return names


def _repeated(names: Sequence[str]) -> tuple[int, int] | None:
    """The places of the first two names that a disk may take for the same."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        if (first := places.setdefault(name.casefold(), place)) != place:
            return first, place
    return None
