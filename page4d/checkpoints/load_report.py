"""What a load says of itself: the tensors that each part of the network takes, and what of the files is left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.stored_heads import head_of
from page4d.checkpoints.weight_parts import Part
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
    """What of a file nothing takes, by the first parts of the names."""
    used = {key for part in parts if part.source is file for key in (*part.takes.values(), *part.joined)}
    counts: dict[str, int] = {}
    for key in file.shapes:
        if key not in used:
            parents = key.split(".")
            prefix = ".".join(parents[: 2 if parents[0] == "aggregator" else 1])
            counts[prefix] = counts.get(prefix, 0) + 1
    for prefix, count in counts.items():
        keys = prefix if prefix in file.shapes else f"{prefix}.*"
        head = head_of(file.published, keys)
        yield Group("unused" if head is None else f"{head} head, unused", file.name, keys, unused=count)
