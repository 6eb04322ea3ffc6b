"""`FrameFolder`: a clip on disk. Frames per camera, and where given their masks, keypoint heat maps and cameras."""

from __future__ import annotations

import enum
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera, read_cameras
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines import still, video
from page4d_engines.still import Still
from page4d_engines.video import Video, VideoFrame

_LAYOUT = f"<camera>/<frame>.{{png,jpg,jpeg}}, or a video per camera: <camera>.{{{','.join(suffix[1:] for suffix in video.SUFFIXES)}}}"

StrPath = str | os.PathLike[str]


class Frame(Protocol):
    """One image of a camera, its mask, or its keypoint map: a `Still` or a `VideoFrame`."""

    @property
    def name(self) -> str:
        """As errors call it."""

    @property
    def stem(self) -> str:
        """What frames, masks and keypoint maps of one time have in common."""

    @property
    def file(self) -> pathlib.Path:
        """On disk."""

    def size(self, what: str) -> tuple[int, int]:
        """Width and height, without decoding."""

    def load(self, what: str, mode: str) -> Image.Image:
        """The image as `RGB` or `L`, upright."""


Files = tuple[tuple[Frame, ...], ...]  # [V][times]


class Loose(enum.Enum):
    """What images are that lie in no camera's folder."""

    VIEWS = enum.auto()
    """Photos of one time: every one is a view, named as its file."""
    TIMES = enum.auto()
    """Frames of one camera, named as their folder."""

    @classmethod
    def of(cls, layout: Layout) -> Loose | None:
        """What an engine of this layout would take them for; None where it has several times and several views."""
        return cls.TIMES if layout.V == 1 else cls.VIEWS if layout.T == 1 else None


@dataclass(frozen=True)
class FrameFolder:
    """V cameras that saw the same times. Views are in the order of `camera_names`, times in that of `frame_names`.

    Attributes:
        path: as it was given.
        camera_names: names of the folders or videos, in natural order (cam2 before cam10).
        size: width and height of every frame in pixels, upright.
        frame_files, mask_files, keypoint_files: `[V][times]`; None where there are none.
        cameras: in the order of the views; None where there are none.
        photos: whether the views are single photos, named as their files.
    """

    path: pathlib.Path
    camera_names: tuple[str, ...]
    size: tuple[int, int]
    frame_files: Files
    mask_files: Files | None
    keypoint_files: Files | None
    cameras: dict[str, Camera] | None
    photos: bool = False

    @classmethod
    def open(
        cls,
        path: StrPath,
        masks: StrPath | None = None,
        cameras: StrPath | None = None,
        keypoints: StrPath | None = None,
        loose: Loose | None = None,
    ) -> FrameFolder:
        """Find a clip's files and check that they fit together; of the images only the headers are read.

        Args:
            path: holds `<camera>/<frame>.{png,jpg,jpeg}` or `<camera>.{mp4,mov,mkv,webm,avi}`, itself or in its folder `frames`; or, with
                `loose`, the images themselves; or is one camera's video.
            masks: folder of single-channel images named as the frames (a video's from 000000 on), or of videos, 255 = dynamic; default
                `masks` beside the frames' folder.
            cameras: a `cameras.json`; default the one beside the frames' folder.
            keypoints: folder of heat maps, as `masks`; default `keypoints` beside the frames' folder.
            loose: what images without a camera's folder are; None makes them an error. Photos of one time and a single video have no
                defaults beside them.

        Raises:
            UsageError: something that was named is missing, no cameras or frames, unequal counts, mixed sizes, an image that cannot be
                read, masks or keypoints that lack a frame, cameras of other names or another size.
            MissingBackendError: there are videos, and PyAV is not installed.
        """
        given = pathlib.Path(path)
        alone = given.is_file() and given.suffix.lower() in video.SUFFIXES  # one camera's video
        if not given.is_dir() and not alone:
            raise _no_folder("frames", given)
        root = given / "frames" if (given / "frames").is_dir() else given
        image = None if alone else next((entry.name for entry in sorted(root.iterdir()) if entry.suffix.lower() in still.SUFFIXES), None)
        sources = {given.stem: given} if alone else _sources(root, videos=image is None or loose is None)
        names = tuple(sources)
        photos = False
        if names:
            files: Files = tuple(_frames(source, f"camera {name}") for name, source in sources.items())
            _check_times(names, files)
        elif image is not None and loose is not None:
            found = _stills(root, "the folder")
            photos = loose is Loose.VIEWS
            names = tuple(file.stem for file in found) if photos else (root.resolve().name,)
            files = tuple((file,) for file in found) if photos else (found,)
        else:
            hint = f"move the images into a folder per camera, as {root / 'cam0' / image}" if image else None
            raise UsageError("the frames' folder has no camera folders", got=root, allowed=_LAYOUT, hint=hint)
        sizes = tuple(tuple(file.size(f"camera {name}, frame {file.name}") for file in column) for name, column in zip(names, files, strict=True))
        first = sizes[0][0]
        for name, column, row in zip(names, files, sizes, strict=True):
            for file, size in zip(column, row, strict=True):
                if size != first:
                    raise UsageError(
                        f"the frames are of different sizes: camera {name}, frame {file.name}",
                        got=_by(size),
                        allowed=f"{_by(first)}, as camera {names[0]}, frame {files[0][0].name}",
                        hint="bring all frames to one size before",
                    )
        beside = pathlib.Path(os.path.abspath(root)).parent
        named = photos or alone  # what belongs to these is what was named
        return cls(
            path=given,
            camera_names=names,
            size=first,
            frame_files=files,
            mask_files=None if named and masks is None else _companions("masks", "mask", masks, beside, names, files, first),
            keypoint_files=None if named and keypoints is None else _companions("keypoints", "keypoint map", keypoints, beside, names, files, first),
            cameras=None if named and cameras is None else _cameras(cameras, beside, names, first),
            photos=photos,
        )

    @property
    def places(self) -> dict[str, pathlib.Path]:
        """What the clip is read from, by what it is: folders that nothing is to be written into."""
        frames = self.path / "frames"
        places = {"the folder of frames": frames if frames.is_dir() else self.path}
        for what, files in (("the folder of masks", self.mask_files), ("the folder of keypoint maps", self.keypoint_files)):
            if files is not None:
                folder = files[0][0].file.parent
                places[what] = folder.parent if folder.name == self.camera_names[0] else folder
        return places

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of the times: the first camera's frames, without suffix."""
        return tuple(file.stem for file in self.frame_files[0])

    @property
    def count(self) -> int:
        """Times that every camera has."""
        return len(self.frame_files[0])

    def image(self, t: int, v: int) -> Image.Image:
        """Frame of time t and view v, RGB, upright: turned as its file says.

        Raises:
            UsageError: the file cannot be decoded.
        """
        return self._decode(self.frame_files[v][t], v, "frame", "RGB")

    def mask(self, t: int, v: int) -> NDArray[np.uint8]:
        """Mask of time t and view v, uint8 `[height, width]`; only where the folder has masks.

        Raises:
            UsageError: the file cannot be decoded.
        """
        assert self.mask_files is not None
        return np.asarray(self._decode(self.mask_files[v][t], v, "mask", "L"))

    def keypoints(self, t: int, v: int) -> NDArray[np.uint8]:
        """Keypoint heat map of time t and view v, uint8 `[height, width]`; only where the folder has keypoints.

        Raises:
            UsageError: the file cannot be decoded.
        """
        assert self.keypoint_files is not None
        return np.asarray(self._decode(self.keypoint_files[v][t], v, "keypoint map", "L"))

    def _decode(self, file: Frame, v: int, kind: str, mode: str) -> Image.Image:
        what = f"camera {self.camera_names[v]}, {kind} {file.name}"
        image = file.load(what, mode)
        if image.size != self.size:
            raise UsageError(f"{what} is not of the size that the folder was opened with", got=_by(image.size), allowed=_by(self.size))
        return image


def _sources(root: pathlib.Path, videos: bool = True) -> dict[str, pathlib.Path]:
    """What holds each camera's images, by its name, in natural order: folders, or where there are none videos, if those are looked for."""
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    found = {entry.name: entry for entry in entries if entry.is_dir()}
    if not found and videos:
        for entry in entries:
            if entry.suffix.lower() in video.SUFFIXES:
                if entry.stem in found:
                    raise UsageError(f"there are two videos of camera {entry.stem}", got=f"{found[entry.stem].name}, {entry.name}", allowed="one per camera")
                found[entry.stem] = entry
    return {name: found[name] for name in sorted(found, key=_natural)}


def _frames(source: pathlib.Path, what: str) -> tuple[Frame, ...]:
    """The images of one camera: those of a folder, or of a video, which may lie in the camera's folder."""
    if source.is_dir():
        videos = [entry for entry in sorted(source.iterdir()) if entry.suffix.lower() in video.SUFFIXES and not entry.name.startswith(".")]
        if len(videos) != 1 or any(entry.suffix.lower() in still.SUFFIXES for entry in source.iterdir()):
            return _stills(source, what)
        source = videos[0]
    opened = Video(source, f"{what}: {source.name}")
    return tuple(VideoFrame(opened, number) for number in range(opened.count))


def _stills(folder: pathlib.Path, what: str) -> tuple[Still, ...]:
    """The images of one camera in natural order."""
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in still.SUFFIXES and not entry.name.startswith("."))
    files = sorted((Still(path) for path in found), key=lambda file: _natural(file.name))
    if not files:
        raise UsageError(f"{what} has no images", got=folder, allowed=f"{' '.join(f'*{suffix}' for suffix in still.SUFFIXES)}, or one video")
    stems: dict[str, Still] = {}
    for file in files:
        if file.stem in stems:
            raise UsageError(f"{what} has frame {file.stem} twice", got=f"{stems[file.stem].name}, {file.name}", allowed="one image per frame")
        stems[file.stem] = file
    return tuple(files)


def _check_times(names: Sequence[str], files: Files) -> None:
    """Every camera must have the same times: as many frames, and the same names if they share names at all."""
    longest = max(range(len(names)), key=lambda v: len(files[v]))
    stems = [{file.stem for file in column} for column in files]
    for v, column in enumerate(files):
        shared = bool(stems[v] & stems[longest])
        missing = next((file.stem for file in files[longest] if file.stem not in stems[v]), None) if shared else None
        if len(column) != len(files[longest]):
            gap = f"; the first that camera {names[v]} lacks is {missing}" if missing else ""
            raise UsageError(
                "the cameras have different numbers of frames",
                got=f"camera {names[v]}: {len(column)}, camera {names[longest]}: {len(files[longest])}{gap}",
                allowed="one frame per camera and time",
            )
        if missing:
            raise UsageError(
                f"camera {names[v]} has no frame {missing}, which camera {names[longest]} has",
                got=f"{len(column)} frames each, of different names",
                allowed="frames of one time under one name in all cameras, or no name in common",
            )


def _companions(
    folder: str, kind: str, given: StrPath | None, beside: pathlib.Path, names: Sequence[str], frames: Files, size: tuple[int, int]
) -> Files | None:
    """The masks or keypoint maps of the frames."""
    root = beside / folder if given is None else pathlib.Path(given)
    if not root.is_dir():
        if given is None:
            return None
        raise _no_folder(folder, root)
    sources = _sources(root)
    result = []
    for name, column in zip(names, frames, strict=True):
        if name not in sources:
            raise UsageError(f"the {folder} folder has no camera {name}", got=root, allowed=f"folders {', '.join(names)}")
        found = {file.stem: file for file in _frames(sources[name], f"the {folder} folder's camera {name}")}
        for frame in column:
            if frame.stem not in found:
                raise UsageError(f"camera {name} has no {kind} for frame {frame.name}", got=root / name, allowed=f"a {kind} for every frame: {frame.stem}.png")
            what = f"camera {name}, {kind} {found[frame.stem].name}"
            if (its := found[frame.stem].size(what)) != size:
                raise UsageError(f"{what} has another size than its frame", got=_by(its), allowed=_by(size))
        result.append(tuple(found[frame.stem] for frame in column))
    return tuple(result)


def _cameras(given: StrPath | None, beside: pathlib.Path, names: Sequence[str], size: tuple[int, int]) -> dict[str, Camera] | None:
    """The folder's cameras in the order of its views; there may be more in the file."""
    path = beside / "cameras.json" if given is None else pathlib.Path(given)
    if given is None and not path.exists():
        return None
    known: Mapping[str, Camera] = read_cameras(path)
    for name in names:
        if name not in known:
            raise UsageError(f"{path} has no camera {name}", got=", ".join(known) or "no cameras", allowed=f"the cameras of the frames: {', '.join(names)}")
        if (its := (known[name].width, known[name].height)) != size:
            raise UsageError(f"{path} says another size for camera {name} than its frames have", got=_by(its), allowed=_by(size))
    return {name: known[name] for name in names}


def _no_folder(kind: str, path: pathlib.Path) -> UsageError:
    what = f"the path of the {kind} is not a folder" if path.exists() else f"there is no such folder of {kind}"
    return UsageError(what, got=path, allowed=f"a folder with {_LAYOUT}")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts numbers inside names by their value."""
    parts = ((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))
    return (*parts, (-1, name))
