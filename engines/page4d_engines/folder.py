"""An engine folder on disk: found whole, or refused before anything in it is loaded."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from page4d.errors import EngineError
from page4d.files import sha256
from page4d.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class EngineFolder:
    """A folder whose manifest and files agree."""

    path: pathlib.Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | pathlib.Path) -> EngineFolder:
        """Read the manifest and check every file against its hash.

        Raises:
            EngineError: no manifest, a file missing, changed or outside the folder.
        """
        folder = pathlib.Path(path)
        manifest = read_manifest(folder)
        for name, expected in manifest.files.items():
            file = folder / name
            if pathlib.PurePosixPath(name).is_absolute() or ".." in pathlib.PurePosixPath(name).parts:
                raise EngineError("manifest.json names a file outside the engine folder", got=name, allowed="relative paths inside it")
            if not file.is_file():
                raise EngineError(f"the engine folder lacks {name}", got=folder, hint="copy the folder whole, or page4d-export again")
            found = sha256(file)
            if found != expected:
                raise EngineError(
                    f"{name} is not the file that was exported: it was changed or cut short",
                    got=f"sha256 {found[:12]}.. ({file.stat().st_size} bytes)",
                    allowed=f"sha256 {expected[:12]}..",
                    hint="copy the folder again, or page4d-export again",
                )
        unlisted = [entry.name for entry in manifest.stages if entry.file not in manifest.files]
        if manifest.plans is not None:
            unlisted += [name for name, plan in manifest.plans.stages.items() if plan.file not in manifest.files]
        if unlisted:
            raise EngineError("manifest.json lists stages without a file", got=", ".join(unlisted), hint="page4d-export again")
        return cls(folder, manifest)

    def file(self, name: str) -> pathlib.Path:
        """A file of the folder by its name in the manifest."""
        return self.path / name
