"""`FrameFolder`: a clip on disk. Frames per camera, and where given their masks, keypoint heat maps and cameras."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera, cameras_from_mapping, read_entries
from page4d.errors import OutOfMemoryError, UsageError
from page4d.system.memory import available_memory
from page4d_engines.clip import video
from page4d_engines.clip.camera_notes import camera_notes
from page4d_engines.clip.frame import Files, Frame, Header
from page4d_engines.clip.levels import Levels
from page4d_engines.clip.listing import Listing, unread_note
from page4d_engines.clip.names import composed, listed, readable
from page4d_engines.clip.pairing import Pairing
from page4d_engines.clip.search import Found, companion_of, frames_of, no_folder, sources_of, stills_of
from page4d_engines.clip.search import UngroupedImages as UngroupedImages
from page4d_engines.clip.video import VideoFrame

StrPath = str | os.PathLike[str]
Size = tuple[int, int]

_MANY_PIXELS = 89_478_485  # Pillow's own limit to what is an ordinary photo
_BYTES = 4  # that a decoded pixel takes


@dataclass(frozen=True)
class FrameFolder:
    """V cameras that saw the same times. Views are in the order of `camera_names`, times in that of `frame_names`.

    Attributes:
        path: as it was given.
        camera_names: names of the folders or videos, in natural order (cam2 before cam10).
        sizes: width and height of every frame in pixels, upright, `[V][times]`.
        frame_files, mask_files, keypoint_files: `[V][times]`; None where there are none.
        cameras: in the order of the views; None where there are none.
        photos: whether the views are single photos, named as their files.
    """

    path: pathlib.Path
    camera_names: tuple[str, ...]
    sizes: tuple[tuple[Size, ...], ...]
    frame_files: Files
    mask_files: Files | None
    keypoint_files: Files | None
    cameras: dict[str, Camera] | None
    photos: bool = False
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
    ) -> FrameFolder:
        """Find a clip's files and check that they fit together; of the images only the headers are read.

        docs/inputs.md says what is taken for what.

        Args:
            path: holds `<camera>/<frame>.{png,jpg,jpeg}` or `<camera>.{mp4,mov,mkv,webm,avi}`, itself or in its folder
                `frames` or `images`; or, with `loose`, the images themselves; or is one camera's video.
            masks: folder of images named as the frames (a video's from 000000 on), or of videos, white = dynamic;
                default `masks` beside the frames' folder.
            cameras: a `cameras.json`; default the one beside the frames' folder.
            keypoints: folder of heat maps, as `masks`; default `keypoints` beside the frames' folder.
            loose: what images without a camera's folder are; None makes them an error. Photos of one time and a single
                video have no defaults beside them.

        Raises:
            UsageError: something that was named is missing, no cameras or frames, frames that can be read in two ways,
                unequal counts, an image that cannot be read, masks or keypoints that lack a frame or have another size,
                cameras of other names or another size.
            MissingBackendError: there are videos, and PyAV is not installed, or HEIC images alone, and pillow-heif is
                not.
            OutOfMemoryError: an image is larger than the memory that is left.
        """
        given = pathlib.Path(path)
        alone = os.path.isfile(given) and given.suffix.lower() in video.SUFFIXES  # one camera's video
        if not os.path.isdir(given) and not alone:
            raise no_folder("frames", given)
        claimed = [pathlib.Path(folder) for folder in (masks, keypoints) if folder is not None]
        found = Found.in_video(given) if alone else Found.in_folder(given, loose, claimed)
        names, pairing = found.names, Pairing.of(found.names, found.files)
        files = pairing.files
        headers = [
            [file.header(f"camera {name}, frame {file.name}") for file in column]
            for name, column in zip(names, files, strict=True)
        ]
        sizes = tuple(tuple(header.size for header in row) for row in headers)
        _check_memory(names, files, sizes)
        beside = pathlib.Path(os.path.abspath(found.root)).parent
        photos = found.loose is UngroupedImages.VIEWS
        named = photos or alone  # what belongs to these is what was named
        companions = {
            "masks": (
                None if named and masks is None else _companions("masks", "mask", masks, beside, found, files, sizes)
            ),
            "keypoints": (
                None
                if named and keypoints is None
                else _companions("keypoints", "keypoint map", keypoints, beside, found, files, sizes)
            ),
        }
        rig, of_cameras = (None, ()) if named and cameras is None else _cameras(cameras, beside, names, files, sizes)
        left = (
            []
            if alone or (photos and found.root == given)
            else _left(beside, found.root, [kind for kind, files_ in companions.items() if files_ is None])
        )
        noticed = (
            *found.notes,
            *pairing.notes,
            *filter(None, [unread_note(found.skipped, f"in {readable(found.root.name) or 'the folder'}")]),
            *(
                f"{readable(folder.name)}/ beside the frames was not read: --{companion_of(folder)} {readable(folder)}"
                " does"
                for folder in left
            ),
            *_header_notes(files, headers, "photos" if photos else "frames"),
            *of_cameras,
        )
        return cls(
            path=given,
            camera_names=names,
            sizes=sizes,
            frame_files=files,
            mask_files=companions["masks"],
            keypoint_files=companions["keypoints"],
            cameras=rig,
            photos=photos,
            _noticed=noticed,
            _deep=frozenset(
                file
                for column, row in zip(files, headers, strict=True)
                for file, header in zip(column, row, strict=True)
                if header.deep
            ),
        )

    @property
    def places(self) -> dict[str, pathlib.Path]:
        """What the clip is read from, by what it is: folders that nothing is to be written into."""
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
        """Names of the times: the first camera's frames, without suffix."""
        return tuple(file.stem for file in self.frame_files[0])

    @property
    def count(self) -> int:
        """Times that every camera has."""
        return len(self.frame_files[0])

    @property
    def size(self) -> Size | None:
        """Width and height of all frames in pixels, upright; None where they differ."""
        different = {size for row in self.sizes for size in row}
        return different.pop() if len(different) == 1 else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a person: what was passed over, what looks as if something else was meant. Grows with the masks
        that were read."""
        levels = self._levels
        read = [note for kind in ("masks", "keypoint maps") for note in levels[kind].notes]
        return (*self._noticed, *filter(None, [levels["frames"].dark_note]), *read)

    def image(self, t: int, v: int) -> Image.Image:
        """Frame of time t and view v, RGB, upright: turned as its file says.

        Raises:
            UsageError: the file cannot be decoded.
        """
        file = self.frame_files[v][t]
        what = f"camera {self.camera_names[v]}, frame {file.name}"
        image = file.image(what)
        self._check_size(what, image.size, t, v)
        if file in self._deep:
            self._levels["frames"].add_image(image)
        return image

    def mask(self, t: int, v: int) -> NDArray[np.uint8]:
        """Mask of time t and view v, uint8 `[height, width]`; only where the folder has masks.

        Raises:
            UsageError: the file cannot be decoded.
        """
        assert self.mask_files is not None
        return self._channel(self.mask_files, "mask", t, v)

    def keypoints(self, t: int, v: int) -> NDArray[np.uint8]:
        """Keypoint heat map of time t and view v, uint8 `[height, width]`; only where the folder has keypoints.

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


def by(size: tuple[int, ...]) -> str:
    """A size as a person writes it."""
    return "x".join(map(str, size))


def _companions(
    folder: str,
    kind: str,
    given: StrPath | None,
    beside: pathlib.Path,
    found: Found,
    frames: Files,
    sizes: Sequence[Sequence[Size]],
) -> Files | None:
    """The masks or keypoint maps of the frames."""
    root = beside / folder if given is None else pathlib.Path(given)
    if not os.path.isdir(root):
        if given is None and not os.path.lexists(root):
            return None
        raise no_folder(folder, root)
    sources = {composed(name): source for name, source in sources_of(root).items()}
    names = found.names
    flat = None
    if (
        found.loose is not None
        and not all(composed(name) in sources for name in names)
        and (listing := Listing.of(root)).images
    ):
        flat = stills_of(listing, f"the {folder} folder")  # as the frames lie themselves
    result = []
    for name, column, row in zip(names, frames, sizes, strict=True):
        if flat is None and composed(name) not in sources:
            raise UsageError(
                f"the {folder} folder has no camera {name}", got=readable(root), allowed=f"folders {', '.join(names)}"
            )
        source = root if flat is not None else sources[composed(name)]
        files: Sequence[Frame] = frames_of(source, f"the {folder} folder's camera {name}") if flat is None else flat
        known = {composed(file.stem): file for file in files}
        for frame, size in zip(column, row, strict=True):
            file = known.get(composed(frame.stem))
            if file is None:
                unread = (
                    unread_note(Listing.of(source).skipped, f"in {readable(source.name)}")
                    if os.path.isdir(source)
                    else None
                )
                allowed = f"a {kind} for every frame: {frame.stem}.png"
                raise UsageError(
                    f"camera {name} has no {kind} for frame {frame.name}",
                    got=readable(source),
                    allowed=allowed,
                    hint=unread,
                )
            what = f"camera {name}, {kind} {file.name}"
            if (other := file.header(what).size) != size:
                raise UsageError(f"{what} has another size than its frame", got=by(other), allowed=by(size))
        result.append(tuple(known[composed(frame.stem)] for frame in column))
    return tuple(result)


def _left(beside: pathlib.Path, root: pathlib.Path, missing: Sequence[str]) -> list[pathlib.Path]:
    """Folders beside the frames that are called as masks or keypoint maps would be, where these are missing."""
    try:
        named = [beside / name for name in sorted(os.listdir(beside)) if companion_of(beside / name) in missing]
    except OSError:
        return []  # a folder that may be passed through and not listed
    return [folder for folder in named if folder != root and os.path.isdir(folder)]


def _cameras(
    given: StrPath | None, beside: pathlib.Path, names: Sequence[str], files: Files, sizes: Sequence[Sequence[Size]]
) -> tuple[dict[str, Camera] | None, tuple[str, ...]]:
    """The folder's cameras in the order of its views, and what is odd about them; there may be more in the file."""
    path = beside / "cameras.json" if given is None else pathlib.Path(given)
    if given is None and not os.path.lexists(path):
        return None, ()
    entries = read_entries(path)
    known = cameras_from_mapping(entries)
    alike = {composed(name): name for name in known}
    chosen: dict[str, str] = {}
    for name, column, row in zip(names, files, sizes, strict=True):
        chosen[name] = name if name in known else alike.get(composed(name), name)
        if chosen[name] not in known:
            raise UsageError(
                f"{path} has no camera {name}",
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
                f"{path} says another size for camera {name} than its frames have",
                got=by(stated),
                allowed=by(row[odd]),
                hint=hint,
            )
    rig = {name: known[key] for name, key in chosen.items()}
    return rig, camera_notes(rig, {name: entries[key] for name, key in chosen.items()})


def _check_memory(names: Sequence[str], files: Files, sizes: Sequence[Sequence[Size]]) -> None:
    """Refuse what cannot be decoded here: a file of a few bytes may say that it is an image of any size."""
    largest, name, file = max(
        (
            (size[0] * size[1], name, file)
            for name, column, row in zip(names, files, sizes, strict=True)
            for file, size in zip(column, row, strict=True)
        ),
        key=lambda each: each[0],
    )
    available = available_memory() if largest > _MANY_PIXELS else None
    if available is not None and largest * _BYTES > available:
        raise OutOfMemoryError(
            f"camera {name}, frame {file.name} is too large for the memory that is left",
            got=f"{largest / 1e6:.0f} megapixels, {largest * _BYTES / 1e9:.1f} GB",
            allowed=f"{available / 1e9:.1f} GB",
            hint="make the image smaller",
        )


def _header_notes(files: Files, headers: Sequence[Sequence[Header]], kind: str) -> Iterator[str]:
    """Sentences about the images themselves."""
    flat = [
        (file, header)
        for column, row in zip(files, headers, strict=True)
        for file, header in zip(column, row, strict=True)
    ]
    for odd, text in (
        (
            [file.name for file, header in flat if header.damaged_exif],
            "EXIF data that cannot be read, and were taken as they are stored",
        ),
        (
            [file.name for file, header in flat if header.transparent],
            "transparent parts, which were taken in the colours that lie under them",
        ),
    ):
        if odd:
            yield f"{kind} with {text}: {listed(odd)}"
    pixels = max(header.size[0] * header.size[1] for _, header in flat)
    if pixels > _MANY_PIXELS:
        yield (
            f"{kind} have up to {pixels / 1e6:.0f} megapixels: reading one takes {pixels * _BYTES / 1e9:.1f} GB of"
            " memory, and up to three times that"
        )
    for video_file in dict.fromkeys(file.video for file, _ in flat if isinstance(file, VideoFrame)):
        if video_file.others:
            yield f"{readable(video_file.path.name)} has {video_file.others + 1} videos in it, of which one was read"
