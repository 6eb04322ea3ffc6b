"""`manifest.json`: written whole or not at all; read, and refused unless its parts go together."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import msgspec

from page4d.errors import EngineError
from page4d.files import OutputKind, write_atomically
from page4d.manifest import FORMAT, Manifest
from page4d.manifest_checks.manifest_check import check_manifest
from page4d.manifest_checks.raw_manifest import RawManifest, check_raw
from page4d.system.folder_file import open_inside
from page4d.system.strict_json import LARGEST, require_strict

MANIFEST = "manifest.json"


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    write_atomically(folder / MANIFEST, text)


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        EngineError: there is none, it is damaged, its format is another version's, or its parts do not go together.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise EngineError("there is no such engine folder", got=folder, hint="page4d-export -o ENGINES --T .. --V ..")
    if not os.path.lexists(path):
        what = "the engine folder has no manifest.json: its export did not finish, or it is another kind of folder"
        raise EngineError(what, got=folder, hint="page4d-export again")
    text = _content(folder)
    try:
        require_strict(text)
        version = msgspec.json.decode(text, type=dict[str, Any]).get("format")
        if version != FORMAT:
            hint = "page4d-export again with this version"
            raise EngineError("manifest.json has another format version", got=version, allowed=FORMAT, hint=hint)
        check_raw(msgspec.json.decode(text, type=RawManifest))
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EngineError(f"manifest.json is damaged: {error}", got=path, hint="page4d-export again") from None
    check_manifest(manifest)
    return manifest


def _content(folder: pathlib.Path) -> bytes:
    """Of the manifest, not more than a manifest may have."""
    path = folder / MANIFEST
    try:
        with open_inside(folder, MANIFEST) as file:
            content = file.read(LARGEST + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise EngineError(f"manifest.json cannot be read: {error.strerror}", got=path) from None
    if len(content) > LARGEST:
        raise EngineError(
            "manifest.json is too large", got=f"{size} bytes", allowed=f"up to {LARGEST}", hint="page4d-export again"
        )
    return content


class _Listing(msgspec.Struct, frozen=True):
    """What every format version's manifest has."""

    page4d: str
    format: int
    stages: list[dict[str, Any]]
    files: dict[str, str]


def _listed(folder: pathlib.Path) -> list[str] | None:
    """The files of an engine folder of any format version; None where manifest.json is not this project's."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > LARGEST:
            return None
        return list(msgspec.json.decode(path.read_bytes(), type=_Listing).files)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


ENGINE_FOLDER = OutputKind("an engine folder", MANIFEST, _listed)
