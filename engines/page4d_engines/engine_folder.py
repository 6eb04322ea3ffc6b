"""An engine folder on disk: found whole, or refused before anything in it is loaded."""

from __future__ import annotations

import hashlib
import os
import pathlib
from dataclasses import dataclass

from page4d.errors import EngineError
from page4d.manifest import Manifest
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.system.folder_file import open_inside
from page4d_engines.stage_files.cpu_graph_check import check_cpu_graph
from page4d_engines.stage_files.onnx_check import check_stage

_LARGEST_ONNX = 2**31 - 1  # of a protobuf message; large weights lie beside it
_CHUNK = 1 << 20


@dataclass(frozen=True)
class EngineFolder:
    """A folder whose manifest and files agree."""

    path: pathlib.Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | pathlib.Path) -> EngineFolder:
        """Read the manifest, check every file against its hash, and every ONNX file against the manifest.

        The folder may be a link, and links in it may lead to files that are inside, too.

        Raises:
            EngineError: no manifest, a file missing, changed, no regular file or outside the folder; an ONNX file with
                other inputs or outputs than the manifest's, operators of an unknown kind, or weights that are not in a
                listed file beside it.
        """
        folder = pathlib.Path(path)
        manifest = read_manifest(folder)
        for name, expected in manifest.files.items():
            _check_hash(folder, name, expected)
        for entry in manifest.stages:
            check_stage(_content(folder, entry.file), folder, manifest, entry)
            for name in filter(None, (entry.cpu, entry.cpu_signed)):
                check_cpu_graph(_content(folder, name), name, folder, manifest, entry)
        return cls(folder, manifest)

    def file(self, name: str) -> pathlib.Path:
        """A file of the folder by its name in the manifest."""
        return self.path / name


def _check_hash(folder: pathlib.Path, name: str, expected: str) -> None:
    digest = hashlib.sha256()
    with open_inside(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except OSError as error:
            raise EngineError(f"{name} cannot be read: {error.strerror}", got=folder / name) from None
    if digest.hexdigest() != expected:
        raise EngineError(
            f"{name} is not the file that was exported: it was changed or cut short",
            got=f"sha256 {digest.hexdigest()[:12]}.. ({size} bytes)",
            allowed=f"sha256 {expected[:12]}..",
            hint="copy the folder again, or page4d-export again",
        )


def _content(folder: pathlib.Path, name: str) -> bytes:
    with open_inside(folder, name) as file:
        content = file.read(_LARGEST_ONNX + 1)
    if len(content) > _LARGEST_ONNX:
        raise EngineError(
            f"{name} is too large for an ONNX file", allowed=f"up to {_LARGEST_ONNX} bytes", hint="page4d-export again"
        )
    return content
