"""`MadeBy`: what a run's results depend on, so that a later command can tell whether they are those it would write."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

import msgspec

from page4d_engines.clip.frame import Files
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.results.scene.cloud_options import EDGES, CloudOptions


class MadeBy(msgspec.Struct, frozen=True):
    """Engines, options and input files of a run. Two runs with the same write the same results."""

    manifest: str
    """SHA-256 of the engines' manifest, which has the hashes of all their files."""
    inputs: str
    """SHA-256 over the input files' names, sizes and times of change, and the calibration."""
    stride: int
    fit: str | None
    points_from: str | None
    min_confidence: float | None
    confidence_percentile: float | None
    edges: float | None = EDGES
    normals: float | None = None
    static_only: bool = False
    max_points: int | None = None
    voxel: float | None = None
    formats: tuple[str, ...] = ("ply",)
    shared_camera: bool = False
    align: bool = False
    close_loop: bool = False
    gaps: bool = False
    """Whether cameras might lack frames."""
    metric: str | None = None
    """Of what metres come from: the known distance, or the SHA-256 of the file."""

    @property
    def cloud(self) -> CloudOptions:
        """Which pixels became points."""
        return CloudOptions(**{name: getattr(self, name) for name in CloudOptions.__struct_fields__})


def inputs_hash(folder: FrameFolder) -> str:
    """What `MadeBy.inputs` has. The files are not read, so a copy of them counts as changed if its times differ.

    Raises:
        OSError: a file is gone.
    """
    digest = hashlib.sha256()
    for kind, files in (
        ("frame", folder.frame_files),
        ("mask", folder.mask_files),
        ("keypoints", folder.keypoint_files),
    ):
        for line in _lines(folder, files or ()):
            digest.update(f"{kind} {line}\n".encode(errors="surrogateescape"))
    for name, camera in (folder.cameras or {}).items():
        numbers = [*camera.K.ravel().tolist(), *camera.world_to_camera.ravel().tolist()]
        digest.update(f"{name} {camera.width} {camera.height} {numbers}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def frames_hash(folder: FrameFolder) -> str:
    """What `Summary.frame_files` has. It is the same of a copy of the frames elsewhere.

    Raises:
        OSError: a file is gone.
    """
    digest = hashlib.sha256()
    for camera, column, sizes in zip(folder.camera_names, folder.frame_files, folder.sizes, strict=True):
        for frame, size in zip(column, sizes, strict=True):
            stored = sum(part.stat().st_size for part in _parts(frame.file))
            line = f"{camera} {frame.stem} {frame.file.name} {stored} {size}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _lines(folder: FrameFolder, files: Files) -> Iterator[str]:
    """A line per file; a video is one file."""
    for camera, column in zip(folder.camera_names, files, strict=False):
        for path in dict.fromkeys(frame.file for frame in column):
            for part in _parts(path):
                status = part.stat()
                yield f"{camera} {part.name} {status.st_size} {status.st_mtime_ns}"


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The file, or the files of a bag that is a folder."""
    return sorted(path.iterdir()) if path.is_dir() else [path]
