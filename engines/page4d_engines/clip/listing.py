"""`Listing`: what lies in a folder, by what can be made of it: frames, cameras, nothing."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from page4d.errors import MissingBackendError, UsageError
from page4d_engines.clip import image_file, video
from page4d_engines.clip.frame import Frame
from page4d_engines.clip.image_file import ImageFile
from page4d_engines.clip.names import listed_files, natural, readable
from page4d_engines.clip.video import Video, VideoFrame

_UNREAD_IMAGES = ".avif .bmp .gif .jfif .jp2 .jpe .jxl .tif .tiff .webp .exr .hdr .pgm .ppm .tga .psd .svg"
_UNREAD_RAW = ".arw .cr2 .cr3 .dng .nef .orf .raf .raw .rw2"
_UNREAD_VIDEOS = ".3gp .flv .insv .m2ts .m4v .mpeg .mpg .mts .ogv .ts .wmv"
_UNREAD = frozenset(f"{_UNREAD_IMAGES} {_UNREAD_RAW} {_UNREAD_VIDEOS}".split())
_JUNK = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
_RESULTS = ("summary.json", "manifest.json")  # of a run, of an export


@dataclass(frozen=True)
class Listing:
    """A folder's entries without the hidden ones, each kind in natural order.

    Attributes:
        folder: that was listed.
        images: whatever is no folder and has the suffix of an image that is read.
        heic: the same in HEIC; where pillow-heif is installed they are among the images, too.
        videos: files with the suffix of a video.
        folders: without those that systems make for themselves, results of this project, and links back up.
        unread: images and videos of other kinds.
        broken: links that lead nowhere.
    """

    folder: pathlib.Path
    images: tuple[pathlib.Path, ...]
    heic: tuple[pathlib.Path, ...]
    videos: tuple[pathlib.Path, ...]
    folders: tuple[pathlib.Path, ...]
    unread: tuple[pathlib.Path, ...]
    broken: tuple[pathlib.Path, ...]

    @classmethod
    def of(cls, folder: pathlib.Path) -> Listing:
        """List a folder.

        Raises:
            UsageError: it cannot be listed.
        """
        try:
            with os.scandir(folder) as scanned:
                kinds = {folder / entry.name: _is_folder(entry) for entry in scanned if not entry.name.startswith(".")}
        except OSError as error:
            raise UsageError(
                f"the folder cannot be read: {error.strerror}",
                got=readable(folder),
                allowed="a folder that this user may list",
            ) from None
        entries = sorted(kinds, key=lambda entry: natural(readable(entry.name)))
        here = os.path.realpath(folder)
        folders = [
            entry
            for entry in entries
            if kinds[entry] and entry.name not in _JUNK and not _leads_up(entry, here) and not _is_result(entry)
        ]
        files = [entry for entry in entries if not kinds[entry]]
        heic = _with(files, image_file.HEIC_SUFFIXES)
        heic_suffixes = image_file.HEIC_SUFFIXES if heic and image_file.reads_heic() else ()
        return cls(
            folder=folder,
            images=_with(files, (*image_file.SUFFIXES, *heic_suffixes)),
            heic=heic,
            videos=_with(files, video.SUFFIXES),
            folders=tuple(folders),
            unread=_with(files, _UNREAD),
            broken=tuple(entry for entry in files if not entry.suffix and not os.path.exists(entry)),
        )

    @property
    def has_frames(self) -> bool:
        """Whether there is an image or a video in it, read or not."""
        return bool(self.images or self.heic or self.videos or self.unread)

    @property
    def skipped(self) -> tuple[pathlib.Path, ...]:
        """Images and videos that are not read for their kind."""
        return self.unread if self.heic and set(self.heic) <= set(self.images) else (*self.heic, *self.unread)

    @property
    def counted(self) -> str:
        """What frames there are, for an error."""
        kinds = {"image": self.images, "video": self.videos, "other image or video": self.skipped}
        return ", ".join(
            f"{len(files)} {kind}{'s' * (len(files) > 1)} ({listed_files(files, 2)})"
            for kind, files in kinds.items()
            if files
        )

    @property
    def sources(self) -> dict[str, pathlib.Path]:
        """What holds each camera's masks or keypoint maps, by its name: folders, or where there are none, videos.

        Raises:
            UsageError: there are two videos of a camera.
        """
        return {readable(folder.name): folder for folder in self.folders} or self.video_sources

    @property
    def video_sources(self) -> dict[str, pathlib.Path]:
        """The videos by their cameras' names, in natural order.

        Raises:
            UsageError: there are two of a camera.
        """
        cameras: dict[str, pathlib.Path] = {}
        for path in self.videos:
            name = readable(path.stem)
            if name in cameras:
                raise UsageError(
                    f"there are two videos of camera {name}",
                    got=f"{readable(cameras[name].name)}, {readable(path.name)}",
                    allowed="one per camera",
                )
            cameras[name] = path
        return {name: cameras[name] for name in sorted(cameras, key=natural)}

    def stills(self, what: str) -> tuple[ImageFile, ...]:
        """The images, those of one camera, in natural order; errors call their owner `what`.

        Raises:
            UsageError: there are none, or two of one name.
            MissingBackendError: all are in HEIC, and pillow-heif is not installed.
        """
        # a folder called like an image is an error when it is opened
        folders = [folder for folder in self.folders if folder.suffix.lower() in image_file.SUFFIXES]
        files = sorted((ImageFile(path) for path in (*self.images, *folders)), key=lambda file: natural(file.name))
        if not files:
            if self.heic:
                raise self.without_heic()
            nested = next((folder for folder in self.folders if Listing.of(folder).has_frames), None)
            hint = None if nested is None else f"its images lie deeper, in {readable(nested.name)}/: move them up"
            hint = hint or unread_note(self.unread, f"in {readable(self.folder.name)}")
            allowed = f"{' '.join(f'*{suffix}' for suffix in image_file.SUFFIXES)}, or one video"
            raise UsageError(f"{what} has no images", got=readable(self.folder), allowed=allowed, hint=hint)
        stems: dict[str, ImageFile] = {}
        for file in files:
            if file.stem in stems:
                got = f"{stems[file.stem].name}, {file.name}"
                raise UsageError(f"{what} has frame {file.stem} twice", got=got, allowed="one image per frame")
            stems[file.stem] = file
        return tuple(files)

    def without_heic(self) -> MissingBackendError:
        """The error of a folder whose images are all in HEIC, where pillow-heif is not installed."""
        return MissingBackendError(
            "HEIC images are decoded by pillow-heif, which is not installed",
            got=f"{readable(self.folder)}: {len(self.heic)} images ({listed_files(self.heic, 2)})",
            hint='pip install "page4d[heic]", or convert them to PNG or JPEG',
        )


def frames_of(source: pathlib.Path, what: str) -> tuple[Frame, ...]:
    """The frames of one camera: images of a folder, or a video, which may lie in a folder; errors call it `what`.

    Raises:
        UsageError: as `Listing.of` and `Listing.stills`, or a video that cannot be read.
        MissingBackendError: as `Listing.stills`, or PyAV is not installed.
    """
    if os.path.isdir(source) or source.suffix.lower() not in video.SUFFIXES:
        listing = Listing.of(source)
        if listing.images or len(listing.videos) != 1:
            return listing.stills(what)
        source = listing.videos[0]
    opened = Video(source, f"{what}: {readable(source.name)}")
    return tuple(VideoFrame(opened, number) for number in range(opened.count))


def unread_note(skipped: Iterable[pathlib.Path], where: str) -> str | None:
    """A sentence that counts files by kind and says what to do; None where there are none."""
    counts = Counter(path.suffix.lower() for path in skipped)
    if not counts:
        return None
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    heic = [suffix for suffix in counts if suffix in image_file.HEIC_SUFFIXES]
    todo = [f'for {", ".join(sorted(heic))} pip install "page4d[heic]"'] if heic else []
    if len(heic) < len(counts):
        todo.append(f"convert {'the others' if heic else 'them'} to PNG or JPEG, or to a video in MP4")
    return f"files {where} were not read: {kinds}; {'; '.join(todo)}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _with(files: Iterable[pathlib.Path], suffixes: Iterable[str]) -> tuple[pathlib.Path, ...]:
    return tuple(path for path in files if path.suffix.lower() in suffixes)


def _leads_up(entry: pathlib.Path, here: str) -> bool:
    """Whether a folder is a link to the one that it lies in, or to one above."""
    return os.path.islink(entry) and f"{here}{os.sep}".startswith(f"{os.path.realpath(entry).rstrip(os.sep)}{os.sep}")


def _is_result(entry: pathlib.Path) -> bool:
    """Whether a folder is what this project wrote: no images of a camera, whatever its folders hold."""
    try:
        names = os.listdir(entry)
    except OSError:
        return False  # whoever lists it gets the error
    frames = (*image_file.SUFFIXES, *image_file.HEIC_SUFFIXES, *video.SUFFIXES)
    return any(name in names for name in _RESULTS) and not any(name.lower().endswith(frames) for name in names)
