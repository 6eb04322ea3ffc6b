"""What belongs to a clip's frames: masks, keypoint maps and cameras, which are named or lie beside them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from page4d.cameras import Camera, cameras_from_mapping, read_entries
from page4d.errors import UsageError
from page4d_engines.clip.camera_notes import camera_notes
from page4d_engines.clip.frame import Files, Frame
from page4d_engines.clip.gaps.absent_frame import AbsentFrame
from page4d_engines.clip.listing import Listing, frames_of, unread_note
from page4d_engines.clip.names import composed, readable
from page4d_engines.clip.search import Source, companion_of, no_folder

StrPath = str | os.PathLike[str]
Size = tuple[int, int]


@dataclass(frozen=True)
class Companions:
    """What belongs to the frames.

    Attributes:
        masks, keypoints: `[V][timesteps]`; None where there are none.
        cameras: in the order of the views; None where there are none.
        unread_notes: sentences about folders whose names are those of masks or keypoints and that were not read.
        camera_notes: sentences about what is odd about the cameras.
    """

    masks: Files | None
    keypoints: Files | None
    cameras: dict[str, Camera] | None
    unread_notes: tuple[str, ...]
    camera_notes: tuple[str, ...]


def attach_companions(
    source: Source,
    frames: Files,
    sizes: Sequence[Sequence[Size]],
    masks: StrPath | None,
    keypoints: StrPath | None,
    cameras: StrPath | None,
) -> Companions:
    """Find masks, keypoint maps and cameras, and check that they fit the frames.

    Args:
        source: of the frames.
        frames, sizes: `[V][timesteps]`.
        masks, keypoints, cameras: where they are; None takes those beside the frames, except for photos, a single video
            and bags, which have only what is named.

    Raises:
        UsageError: something that was named is missing, lacks a frame or a camera, or has another size.
    """
    beside = pathlib.Path(os.path.abspath(source.root)).parent
    only_named = source.photos or source.is_recording

    def maps(folder: str, kind: str, path: StrPath | None) -> Files | None:
        if only_named and path is None:
            return None
        return _maps(folder, kind, path, beside, source, frames, sizes)

    mask_files, keypoint_files = maps("masks", "mask", masks), maps("keypoints", "keypoint map", keypoints)
    rig, odd = (None, ()) if only_named and cameras is None else _cameras(cameras, beside, source.names, frames, sizes)
    left: list[pathlib.Path] = []
    if not source.is_recording and not (source.photos and source.root == source.path):
        missing = {"masks": mask_files, "keypoints": keypoint_files}
        left = _left_beside(beside, source.root, [kind for kind, files in missing.items() if files is None])
    unread = [
        f"{readable(folder.name)}/ beside the frames was not read: --{companion_of(folder)} {readable(folder)} does"
        for folder in left
    ]
    return Companions(mask_files, keypoint_files, rig, tuple(unread), odd)


def by(size: tuple[int, ...]) -> str:
    """A size as text: `640x480`."""
    return "x".join(map(str, size))


def _maps(
    folder: str,
    kind: str,
    path: StrPath | None,
    beside: pathlib.Path,
    source: Source,
    frames: Files,
    sizes: Sequence[Sequence[Size]],
) -> Files | None:
    """The masks or keypoint maps of the frames."""
    root = beside / folder if path is None else pathlib.Path(path)
    if not os.path.isdir(root):
        if path is None and not os.path.lexists(root):
            return None
        raise no_folder(folder, root)
    listing, names = Listing.of(root), source.names
    places = {composed(name): place for name, place in listing.sources.items()}
    ungrouped = None  # maps without camera folders, as the frames themselves lie
    if source.loose is not None and listing.images and not all(composed(name) in places for name in names):
        ungrouped = listing.stills(f"the {folder} folder")
    columns = []
    for name, column, row in zip(names, frames, sizes, strict=True):
        if ungrouped is None and composed(name) not in places:
            allowed = f"folders {', '.join(names)}"
            raise UsageError(f"the {folder} folder has no camera {name}", got=readable(root), allowed=allowed)
        place = root if ungrouped is not None else places[composed(name)]
        files = ungrouped if ungrouped is not None else frames_of(place, f"the {folder} folder's camera {name}")
        known: dict[str, Frame] = {composed(file.stem): file for file in files}
        known |= {composed(frame.stem): frame for frame in column if isinstance(frame, AbsentFrame)}
        for frame, size in zip(column, row, strict=True):
            file = known.get(composed(frame.stem))
            if file is None:
                raise UsageError(
                    f"camera {name} has no {kind} for frame {frame.name}",
                    got=readable(place),
                    allowed=f"a {kind} for every frame: {frame.stem}.png",
                    hint=_unread(place),
                )
            what = f"camera {name}, {kind} {file.name}"
            if (other := file.header(what).size) != size:
                raise UsageError(f"{what} has another size than its frame", got=by(other), allowed=by(size))
        columns.append(tuple(known[composed(frame.stem)] for frame in column))
    return tuple(columns)


def _unread(place: pathlib.Path) -> str | None:
    """A note on the files of a folder that are not read."""
    return unread_note(Listing.of(place).skipped, f"in {readable(place.name)}") if os.path.isdir(place) else None


def _left_beside(beside: pathlib.Path, root: pathlib.Path, missing: Sequence[str]) -> list[pathlib.Path]:
    """Folders beside the frames with a name of masks or keypoint maps, where these are missing."""
    try:
        named = [beside / name for name in sorted(os.listdir(beside)) if companion_of(beside / name) in missing]
    except OSError:
        return []  # a folder that may be passed through and not listed
    return [folder for folder in named if folder != root and os.path.isdir(folder)]


def _cameras(
    path: StrPath | None, beside: pathlib.Path, names: Sequence[str], files: Files, sizes: Sequence[Sequence[Size]]
) -> tuple[dict[str, Camera] | None, tuple[str, ...]]:
    """The cameras in the order of the views, and notes on what is odd about them; the file may have more cameras."""
    file = beside / "cameras.json" if path is None else pathlib.Path(path)
    if path is None and not os.path.lexists(file):
        return None, ()
    entries = read_entries(file)
    known = cameras_from_mapping(entries)
    alike = {composed(name): name for name in known}
    chosen: dict[str, str] = {}
    for name, column, row in zip(names, files, sizes, strict=True):
        chosen[name] = name if name in known else alike.get(composed(name), name)
        if chosen[name] not in known:
            raise UsageError(
                f"{file} has no camera {name}",
                got=", ".join(known) or "no cameras",
                allowed=f"the cameras of the frames: {', '.join(names)}",
            )
        camera = known[chosen[name]]
        stated = (camera.width, camera.height)
        odd = next((number for number, size in enumerate(row) if size != stated), None)
        if odd is not None:
            hint = f"a camera has one size, and frame {column[odd].name} is of another than others"
            if len(set(row)) == 1:
                scales = f"K's rows by {row[odd][0] / stated[0]:.6g} and {row[odd][1] / stated[1]:.6g}"
                hint = f"the size and K that belong to these frames; if they were resized, multiply {scales}"
            raise UsageError(
                f"{file} says another size for camera {name} than its frames have",
                got=by(stated),
                allowed=by(row[odd]),
                hint=hint,
            )
    rig = {name: known[key] for name, key in chosen.items()}
    return rig, camera_notes(rig, {name: entries[key] for name, key in chosen.items()})
