"""The checkpoint that a command is given: a path, or a repository on a hub, with a bar while it is downloaded."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from page4d_engines import console

if TYPE_CHECKING:
    from page4d.checkpoints.checkpoint import Checkpoint

METAVAR = "FILE|FOLDER|ID"
KINDS = "a file, an index of several, a folder, or OWNER/NAME on the Hugging Face hub"
"""What a checkpoint may be, for --help."""


def given_checkpoint(checkpoint: pathlib.Path, quiet: bool = False) -> Checkpoint:
    """Open it. Errors: as of `Checkpoint.open`."""
    from page4d.checkpoints.checkpoint import Checkpoint
    from page4d.checkpoints.hub.hub_id import hub_id_of

    with console.progress(quiet or hub_id_of(checkpoint) is None) as progress:
        return Checkpoint.open(checkpoint, progress)
