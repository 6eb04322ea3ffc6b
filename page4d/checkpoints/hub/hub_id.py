"""`HubId`: which file of which repository a text means; and when a text means a repository rather than a path."""

from __future__ import annotations

import os
import pathlib
import re
from dataclasses import dataclass

from page4d.errors import UsageError

PREFIX = "hf:"
_OWNER_AND_NAME = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}"
_PLAIN = re.compile(_OWNER_AND_NAME, re.ASCII)
_FULL = re.compile(
    rf"{PREFIX}(?P<repository>{_OWNER_AND_NAME})(?:@(?P<revision>[\w./-]{{1,200}}))?(?::(?P<file>[^\\:]{{1,500}}))?",
    re.ASCII,
)
_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".json")  # of paths: no repository is called so
_ALLOWED = f"{PREFIX}OWNER/NAME, {PREFIX}OWNER/NAME@REVISION, {PREFIX}OWNER/NAME@REVISION:FILE"


@dataclass(frozen=True)
class HubId:
    """A repository of a hub: all that a user has to name.

    Attributes:
        repository: `owner/name`.
        revision: a branch, a tag or the hash of a commit; empty: the repository's main branch.
        file: path in the repository, with `/`; empty: its one checkpoint.
    """

    repository: str
    revision: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> HubId:
        """Read `hf:owner/name@revision:file`, of which revision and file may be absent.

        Raises:
            UsageError: it is not of that form, or names a file outside of the repository.
        """
        match = _FULL.fullmatch(text)
        if match is None:
            raise UsageError("a checkpoint on the hub is not named like this", got=text[:200], allowed=_ALLOWED)
        file = match["file"] or ""
        if file and (not file.isprintable() or set(file.split("/")) & {"", ".", ".."}):
            raise UsageError(
                "the name of a file in a repository has no empty part, and no . or .. as one",
                got=file[:200],
                allowed="model.safetensors, folder/model.safetensors",
            )
        return cls(match["repository"], match["revision"] or "", file)

    def at(self, revision: str = "", file: str = "") -> HubId:
        """The same repository at a revision, with a file."""
        return HubId(self.repository, revision or self.revision, file or self.file)

    def __str__(self) -> str:
        """As `parse` reads it."""
        revision, file = f"@{self.revision}" if self.revision else "", f":{self.file}" if self.file else ""
        return f"{PREFIX}{self.repository}{revision}{file}"


def hub_id_of(checkpoint: str | pathlib.Path) -> HubId | None:
    """The repository that a user means; None where it is a path.

    `hf:` always means a repository. `owner/name` is one if nothing is there of that name: a file or folder wins.

    Raises:
        UsageError: as `HubId.parse`; nothing of the name is there, though the folder in front of it is, so that a path
            may have been meant: it is not sent over a network.
    """
    text = os.fspath(checkpoint)
    if text.startswith(PREFIX):
        return HubId.parse(text)
    if not _PLAIN.fullmatch(text) or text.lower().endswith(_ENDINGS) or os.path.lexists(text):
        return None
    folder = pathlib.Path(text).parent
    if folder.is_dir():
        raise UsageError(
            "there is no such checkpoint",
            got=f"{text}: the folder {folder} has nothing of that name",
            allowed="a file, a folder with a checkpoint, or a repository on the hub",
            hint=f"{PREFIX}{text}, if the repository is meant",
        )
    return HubId(text)
