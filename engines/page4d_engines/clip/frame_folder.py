"""`FrameFolder`: a clip on disk. Frames per camera, and where given their masks, keypoint heat maps and cameras."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera
from page4d.errors import OutOfMemoryError, UsageError
from page4d.system.memory import available_memory
from page4d_engines.clip.bags.frame import BagFrame
from page4d_engines.clip.companions import Size, StrPath, attach_companions, by
from page4d_engines.clip.frame import Files, Frame, Header
from page4d_engines.clip.gaps.absent_frame import AbsentFrame
from page4d_engines.clip.levels import Levels
from page4d_engines.clip.listing import unread_note
from page4d_engines.clip.names import listed, readable
from page4d_engines.clip.pairing import Pairing
from page4d_engines.clip.search import UngroupedImages as UngroupedImages
from page4d_engines.clip.search import discover
from page4d_engines.clip.video import VideoFrame

_MANY_PIXELS = 89_478_485  # Pillow's own limit to what is an ordinary photo
_BYTES = 4  # that a decoded pixel takes


@dataclass(frozen=True)
class FrameFolder:
    """V cameras' frames of the same timesteps.

    Views are in the order of `camera_names`, timesteps in that of `frame_names`.

    Attributes:
        path: as it was given.
        camera_names: names of the folders or videos, in natural order (cam2 before cam10).
        sizes: width and height of every frame in pixels, upright, `[V][timesteps]`.
        frame_files, mask_files, keypoint_files: `[V][timesteps]`; None where there are none.
        cameras: in the order of the views; None where there are none.
        calibration: that a bag has of its cameras, at identity poses: good for focal lengths alone; empty where there
            is none.
        photos: whether the views are single photos, named as their files.
        transparent: names of the images that have transparent parts.
        over_white: whether these are laid over white; otherwise the colours of the transparent parts show.
    """

    path: pathlib.Path
    camera_names: tuple[str, ...]
    sizes: tuple[tuple[Size, ...], ...]
    frame_files: Files
    mask_files: Files | None
    keypoint_files: Files | None
    cameras: dict[str, Camera] | None
    calibration: dict[str, Camera] = field(default_factory=dict)
    photos: bool = False
    transparent: tuple[str, ...] = ()
    over_white: bool = False
    _noticed: tuple[str, ...] = ()
    _deep: frozenset[Frame] = frozenset()
    _levels: dict[str, Levels] = field(
        default_factory=lambda: {kind: Levels(kind) for kind in ("frames", "masks", "keypoint maps")},
        compare=False,
        repr=False,
    )

    @classmethod
    def open(
        cls,
        path: StrPath,
        masks: StrPath | None = None,
        cameras: StrPath | None = None,
        keypoints: StrPath | None = None,
        loose: UngroupedImages | None = None,
        topics: Sequence[str] | None = None,
        gaps: bool = False,
    ) -> FrameFolder:
        """Find a clip's files and check that they fit together; of the images only the headers are read.

        docs/inputs.md says what is taken for what.

        Args:
            path: holds `<camera>/<frame>.{png,jpg,jpeg}` or `<camera>.{mp4,mov,mkv,webm,avi}`, itself or in its folder
                `frames` or `images`; or, with `loose`, the images themselves; or is one camera's video,
                or a bag of ROS 2.
            masks: folder of images named as the frames (a video's from 000000 on), or of videos, white = dynamic;
                default `masks` beside the frames' folder.
            cameras: a `cameras.json`; default the one beside the frames' folder.
            keypoints: folder of heat maps, as `masks`; default `keypoints` beside the frames' folder.
            loose: what images without a camera's folder are; None makes them an error. Photos of one timestep and a
                single video have no defaults beside them.
            topics: of a bag, the cameras in the order of the views; None takes all topics of images.
            gaps: whether cameras may lack frames of some timesteps, as for engines of `page4d-export --absent-views`.

        Raises:
            UsageError: something that was named is missing, no cameras or frames, frames that can be read in two ways,
                unequal counts, an image that cannot be read, masks or keypoints that lack a frame or have another size,
                cameras of other names or another size.
            MissingBackendError: there are videos, and PyAV is not installed, or HEIC images alone, and pillow-heif is
                not; or it is a bag, and rosbags is not.
            OutOfMemoryError: an image is larger than the memory that is left.
        """
        claimed = [pathlib.Path(folder) for folder in (masks, keypoints) if folder is not None]
        source = discover(path, loose, claimed, topics)
        pairing = Pairing.of(source.names, source.files, gaps)
        headers = [
            [file.header(f"camera {name}, frame {file.name}") for file in column]
            for name, column in zip(source.names, pairing.files, strict=True)
        ]
        sizes = tuple(tuple(header.size for header in row) for row in headers)
        _check_memory(source.names, pairing.files, sizes)
        companions = attach_companions(source, pairing.files, sizes, masks, keypoints, cameras)
        unread = unread_note(source.skipped, f"in {readable(source.root.name) or 'the folder'}")
        read = [
            (file, header)
            for column, row in zip(pairing.files, headers, strict=True)
            for file, header in zip(column, row, strict=True)
        ]
        return cls(
            path=source.path,
            camera_names=source.names,
            sizes=sizes,
            frame_files=pairing.files,
            mask_files=companions.masks,
            keypoint_files=companions.keypoints,
            cameras=companions.cameras,
            calibration=source.calibration,
            photos=source.photos,
            transparent=tuple(file.name for file, header in read if header.transparent),
            _noticed=(
                *source.notes,
                *pairing.notes,
                *([] if unread is None else [unread]),
                *companions.unread_notes,
                *_header_notes(read, f"{_kind(source.photos)}s"),
                *companions.camera_notes,
            ),
            _deep=frozenset(file for file, header in read if header.deep),
        )

    @property
    def places(self) -> dict[str, pathlib.Path]:
        """The folders that the clip is read from, by what they are: nothing may be written into them."""
        first = self.frame_files[0][0].file
        root = next(
            (root for root in (self.path / "frames", self.path / "images") if first.is_relative_to(root)), self.path
        )
        places = {"the folder of frames": root}
        for what, files in (
            ("the folder of masks", self.mask_files),
            ("the folder of keypoint maps", self.keypoint_files),
        ):
            if files is not None:
                folder = files[0][0].file.parent
                places[what] = folder.parent if folder.name == self.camera_names[0] else folder
        return places

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of the timesteps: those of the first camera's frames, without suffix."""
        return tuple(file.stem for file in self.frame_files[0])

    @property
    def count(self) -> int:
        """Timesteps that every camera has."""
        return len(self.frame_files[0])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which frames there are, `[timesteps,V]`."""
        return np.array([[not isinstance(file, AbsentFrame) for file in column] for column in self.frame_files]).T

    @property
    def size(self) -> Size | None:
        """Width and height of all frames in pixels, upright; None where they differ."""
        different = {size for row in self.sizes for size in row}
        return different.pop() if len(different) == 1 else None

    @property
    def is_bag(self) -> bool:
        """Whether the frames are messages of a bag."""
        first = self.frame_files[0][0]
        return isinstance(first.neighbour if isinstance(first, AbsentFrame) else first, BagFrame)

    @property
    def kind(self) -> str:
        """What texts call an image: `photo` or `frame`."""
        return _kind(self.photos)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was not read and what looks like a mistake; more as frames and masks are read."""
        levels, hidden = self._levels, []
        if self.transparent and not self.over_white:
            what = f"{self.kind}s with transparent parts, which were taken in the colours that lie under them"
            hidden = [f"{what}: {listed(self.transparent)}"]
        read = [note for kind in ("masks", "keypoint maps") for note in levels[kind].notes]
        return (*self._noticed, *hidden, *filter(None, [levels["frames"].dark_note]), *read)

    def image(self, t: int, v: int) -> Image.Image:
        """Frame of timestep t and view v, RGB, upright: turned as its file says.

        Raises:
            UsageError: the file cannot be decoded.
        """
        file = self.frame_files[v][t]
        what = f"camera {self.camera_names[v]}, frame {file.name}"
        image = file.image(what, self.over_white)
        self._check_size(what, image.size, t, v)
        if file in self._deep:
            self._levels["frames"].add_image(image)
        return image

    def mask(self, t: int, v: int) -> NDArray[np.uint8]:
        """Mask of timestep t and view v, uint8 `[height, width]`; only where the folder has masks.

        Raises:
            UsageError: the file cannot be decoded.
        """
        assert self.mask_files is not None
        return self._channel(self.mask_files, "mask", t, v)

    def keypoints(self, t: int, v: int) -> NDArray[np.uint8]:
        """Keypoint heat map of timestep t and view v, uint8 `[height, width]`; only where the folder has keypoints.

        Raises:
            UsageError: the file cannot be decoded.
        """
        assert self.keypoint_files is not None
        return self._channel(self.keypoint_files, "keypoint map", t, v)

    def _channel(self, files: Files, kind: str, t: int, v: int) -> NDArray[np.uint8]:
        what = f"camera {self.camera_names[v]}, {kind} {files[v][t].name}"
        channel = files[v][t].channel(what)
        self._check_size(what, channel.values.shape[::-1], t, v)
        self._levels[f"{kind}s"].add(channel)
        return channel.values

    def _check_size(self, what: str, size: tuple[int, ...], t: int, v: int) -> None:
        if size != self.sizes[v][t]:
            raise UsageError(
                f"{what} is not of the size that the folder was opened with", got=by(size), allowed=by(self.sizes[v][t])
            )


def _kind(photos: bool) -> str:
    return "photo" if photos else "frame"


def _check_memory(names: Sequence[str], files: Files, sizes: Sequence[Sequence[Size]]) -> None:
    """Refuse what cannot be decoded here: a file of a few bytes may say that it is an image of any size."""
    largest, name, file = max(
        (
            (size[0] * size[1], name, file)
            for name, column, row in zip(names, files, sizes, strict=True)
            for file, size in zip(column, row, strict=True)
        ),
        key=lambda entry: entry[0],
    )
    if largest > _MANY_PIXELS and largest * _BYTES > (available := available_memory()):
        raise OutOfMemoryError(
            f"camera {name}, frame {file.name} is too large for the memory that is left",
            got=f"{largest / 1e6:.0f} megapixels, {largest * _BYTES / 1e9:.1f} GB",
            allowed=f"{available / 1e9:.1f} GB",
            hint="make the image smaller",
        )


def _header_notes(read: Sequence[tuple[Frame, Header]], kind: str) -> Iterator[str]:
    """Sentences about the images themselves."""
    if damaged := [file.name for file, header in read if header.damaged_exif]:
        yield f"{kind} with EXIF data that cannot be read, and were taken as they are stored: {listed(damaged)}"
    pixels = max(header.size[0] * header.size[1] for _, header in read)
    if pixels > _MANY_PIXELS:
        memory = f"{pixels * _BYTES / 1e9:.1f} GB of memory, and up to three times that"
        yield f"{kind} have up to {pixels / 1e6:.0f} megapixels: reading one takes {memory}"
    for video_file in dict.fromkeys(file.video for file, _ in read if isinstance(file, VideoFrame)):
        if video_file.others:
            yield f"{readable(video_file.path.name)} has {video_file.others + 1} videos in it, of which one was read"
