"""What a load says of itself: the tensors that each part of the network takes, and what of the files is left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.stored.stored_heads import CAMERA_ENCODER, head_of
from page4d.checkpoints.stored.unused_parts import unused_part_of
from page4d.checkpoints.weight_parts import Part
from page4d.config import Published
from page4d.manifest import Group


def groups_of(parts: Sequence[Part], checkpoints: Iterable[Checkpoint]) -> tuple[Group, ...]:
    """A row for each part of the network, then the rows of each file's tensors that no part takes."""
    unused = (row for checkpoint in checkpoints for row in _unused(checkpoint, parts))
    return (*map(_group, parts), *unused)


def _group(part: Part) -> Group:
    truncated = "truncate" in part.name  # its camera token is new
    return Group(
        name=part.name,
        file="" if part.source is None else part.source.name,
        keys=part.keys,
        loaded=len(part.takes),
        adapted=len(part.joined),
        new=len(part.new) + truncated,
    )


def _unused(file: Checkpoint, parts: Iterable[Part]) -> Iterator[Group]:
    """What of a file nothing takes, a row for each part of it and prefix."""
    used = {key for part in parts if part.source is file for key in (*part.takes.values(), *part.joined)}
    counts: dict[tuple[str, str], int] = {}
    for key in file.shapes:
        if key not in used:
            row = _row(file.published, key)
            counts[row] = counts.get(row, 0) + 1
    for (name, keys), count in counts.items():
        yield Group(name, file.name, keys, unused=count)


def _row(published: Published, key: str) -> tuple[str, str]:
    """The name and the keys of the row that a tensor which nothing takes is counted in."""
    parents = key.split(".")
    prefix = ".".join(parents[: 2 if parents[0] in ("aggregator", "backbone") else 1])
    keys = key if prefix == key else f"{prefix}.*"
    part, head = unused_part_of(published, key), head_of(published, key)
    if part is not None:
        return f"{part.name}, unused", part.keys or keys
    if published is Published.DA3 and key.startswith(CAMERA_ENCODER.prefixes):
        return "camera encoder, unused", keys
    return "unused" if head is None else f"{head} head, unused", keys
