"""`LoadReport`: what of a model came from which checkpoint. Stored in the manifest; no torch."""

from __future__ import annotations

import msgspec


class SourceFile(msgspec.Struct, frozen=True):
    """A checkpoint that weights came from."""

    name: str
    """Of the file, without its folder. A checkpoint in several files has an entry for its index and one for each of
    them."""
    model: str
    """What the checkpoint is, in words."""
    sha256: str
    tensors: int
    """Tensors of the model in it, none in an index; a trainer's state is not counted."""


class Group(msgspec.Struct, frozen=True):
    """One part of the network, or what a file has that the network does not use. Counts are tensors."""

    name: str
    file: str
    """The source's name; empty where all is new."""
    keys: str
    """Which of its keys, as a pattern."""
    loaded: int = 0
    """Taken as they are."""
    adapted: int = 0
    """Cut, joined or repeated."""
    new: int = 0
    """Not in any checkpoint: seeded, or set to their neutral value."""
    unused: int = 0


class LoadReport(msgspec.Struct, frozen=True):
    """One load. `str()` of it is a table, and a line for each note."""

    files: tuple[SourceFile, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    """What is unusual in a checkpoint and no error, in words."""

    @property
    def loaded(self) -> int:
        """Tensors taken as they are."""
        return sum(group.loaded for group in self.groups)

    @property
    def adapted(self) -> int:
        """Tensors cut, joined or repeated."""
        return sum(group.adapted for group in self.groups)

    @property
    def new(self) -> int:
        """Tensors that no checkpoint gave."""
        return sum(group.new for group in self.groups)

    @property
    def unused(self) -> int:
        """Tensors of the files that the model has no use for."""
        return sum(group.unused for group in self.groups)

    def __str__(self) -> str:
        total = Group("all", "", "", self.loaded, self.adapted, self.new, self.unused)
        rows: list[tuple[str, ...]] = [("group", "file", "keys", "loaded", "adapted", "new", "unused")]
        for group in (*self.groups, total):
            counts = (group.loaded, group.adapted, group.new, group.unused)
            rows.append((group.name, group.file, group.keys, *(str(count or "") for count in counts)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        padded = lambda row: [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "\n".join(
            (*("  ".join(padded(row)).rstrip() for row in rows), *(f"note: {note}" for note in self.notes))
        )
