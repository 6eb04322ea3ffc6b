"""`Listing`: what lies in a folder, by what can be made of it."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from page4d.errors import UsageError
from page4d_engines.clip import image_file, video
from page4d_engines.clip.names import listed, natural, readable

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
            f"{len(files)} {kind}{'s' * (len(files) > 1)} ({listed([readable(path.name) for path in files], 2)})"
            for kind, files in kinds.items()
            if files
        )


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
