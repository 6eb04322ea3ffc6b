"""`Source`: where a clip's frames lie. Where a folder can be read in two ways, an error names both."""

from __future__ import annotations

import enum
import os
import pathlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from page4d.cameras import Camera
from page4d.errors import MissingBackendError, UsageError
from page4d.layout import Layout
from page4d_engines.clip import video
from page4d_engines.clip.bags.bag import bag_files, is_bag
from page4d_engines.clip.bags.recording import Recording
from page4d_engines.clip.frame import Files, Frame
from page4d_engines.clip.listing import Listing, frames_of, unread_note
from page4d_engines.clip.names import listed, listed_files, readable

LAYOUT = (
    "<camera>/<frame>.{png,jpg,jpeg}, or a video per camera:"
    f" <camera>.{{{','.join(suffix[1:] for suffix in video.SUFFIXES)}}}"
)
TRUE_DEPTH = "depth"
"""The folder beside the frames that `page4d eval` reads, and no run does."""

# by a folder's name the option that takes it
_COMPANIONS = {"masks": "masks", "mask": "masks", "keypoints": "keypoints", "keypoint": "keypoints"}


class UngroupedImages(enum.Enum):
    """What images are that lie in no camera's folder."""

    VIEWS = enum.auto()
    """Photos of one timestep: every one is a view, named as its file."""
    TIMES = enum.auto()
    """Frames of one camera, named as their folder."""

    @classmethod
    def of(cls, layout: Layout) -> UngroupedImages | None:
        """What an engine of this layout takes them for; None where it has several timesteps and several views."""
        return cls.TIMES if layout.V == 1 else cls.VIEWS if layout.T == 1 else None


@dataclass
class Source:
    """The frames of a clip, before cameras are compared with each other.

    Attributes:
        path: the folder, video or bag that was named.
        root: the folder that the frames lie in, or the video or bag.
        names: of the cameras.
        files: `[V][frames]`.
        loose: what images without a camera's folder were taken for; None where there are camera folders or videos.
        skipped: images and videos of kinds that are not read.
        notes: sentences about what else was not read.
        calibration: of a bag's cameras, at identity poses; empty where there is none.
        is_recording: whether it is one camera's video, or a bag.
    """

    path: pathlib.Path
    root: pathlib.Path
    names: tuple[str, ...] = ()
    files: Files = ()
    loose: UngroupedImages | None = None
    skipped: list[pathlib.Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    calibration: dict[str, Camera] = field(default_factory=dict)
    is_recording: bool = False

    @property
    def photos(self) -> bool:
        """Whether the views are single photos, named as their files."""
        return self.loose is UngroupedImages.VIEWS

    @classmethod
    def in_video(cls, path: pathlib.Path) -> Source:
        """One camera's frames.

        Raises:
            UsageError: it cannot be read.
            MissingBackendError: PyAV is not installed.
        """
        source = cls(path, path, is_recording=True)
        source._take_cameras({readable(path.stem): path})
        return source

    @classmethod
    def in_bag(cls, path: pathlib.Path, topics: Sequence[str] | None) -> Source:
        """The cameras of a bag, as `Recording.of` says.

        Raises:
            UsageError, MissingBackendError: as `Recording.of`.
        """
        recording = Recording.of(path, topics)
        return cls(
            path=path,
            root=path,
            names=recording.names,
            files=recording.files,
            notes=list(recording.notes),
            calibration=recording.calibration,
            is_recording=True,
        )

    @classmethod
    def in_folder(cls, path: pathlib.Path, loose: UngroupedImages | None, claimed: Collection[pathlib.Path]) -> Source:
        """Find the frames in a folder.

        Args:
            path: the folder, or one that holds it as `frames` or `images`.
            loose: what images without a camera's folder are; None makes them an error.
            claimed: folders that are known to be something else.

        Raises:
            UsageError: there are none, or they can be read in two ways.
            MissingBackendError: all are of a kind that an optional library reads, which is not installed.
        """
        claimed_paths = {os.path.realpath(folder) for folder in claimed if os.path.isdir(folder)}
        source = cls(path, _root(path, loose, claimed_paths))
        listing = Listing.of(source.root)
        folders = [folder for folder in listing.folders if os.path.realpath(folder) not in claimed_paths]
        holding = [folder for folder in folders if (_has_frames_below if companion_of(folder) else _has_frames)(folder)]
        source.skipped += listing.skipped
        if source.root != path:
            beside = Listing.of(path)
            source._pass_over((*beside.images, *beside.videos), f"beside {source.root.name}/")
        if listing.broken:
            source.notes.append(f"links in {readable(source.root)} lead nowhere: {listed_files(listing.broken)}")
        if listing.images and loose is not None:
            if holding:
                raise _two_readings(listing, holding, loose)
            source._take_loose(listing, loose)
        elif listing.images and holding and all(map(companion_of, holding)):
            raise _nothing(listing)
        elif holding or (folders and not listing.videos and not listing.images):
            source._take_folders(listing, folders, holding)
        elif listing.videos:
            source._pass_over(listing.images, "beside the videos")
            source._take_cameras(listing.video_sources)
        else:
            raise _nothing(listing)
        return source

    def _take_loose(self, listing: Listing, loose: UngroupedImages) -> None:
        stills = listing.stills("the folder")
        views = loose is UngroupedImages.VIEWS
        self.loose = loose
        self.names = tuple(file.stem for file in stills) if views else (readable(listing.folder.resolve().name),)
        self.files = tuple((file,) for file in stills) if views else (stills,)
        self._pass_over(listing.videos, "beside the images")

    def _take_folders(self, listing: Listing, folders: list[pathlib.Path], holding: list[pathlib.Path]) -> None:
        for folder in holding:
            if companion_of(folder):
                raise _camera_or_companion(folder, [other for other in folders if other != folder])
        of_videos = {video.stem for video in listing.videos}
        if of_videos and not of_videos <= {folder.name for folder in folders}:
            raise UsageError(
                "videos and folders of images or videos lie side by side: either may be the cameras",
                got=f"{readable(listing.folder)}: {listing.counted}; {_counted(holding)}",
                allowed="a video per camera, or a folder per camera",
                hint=f"move what is not meant elsewhere: {listed_files((*listing.videos, *holding))}",
            )
        self._pass_over((*listing.images, *listing.videos), "beside the cameras' folders")
        self._take_cameras({readable(folder.name): folder for folder in folders})

    def _take_cameras(self, sources: dict[str, pathlib.Path]) -> None:
        self.names = tuple(sources)
        columns: list[tuple[Frame, ...]] = []
        for name, source in sources.items():
            if os.path.isdir(source):
                listing = Listing.of(source)
                self.skipped += listing.skipped
                if listing.images:
                    self._pass_over(listing.videos, f"beside the images of camera {name}")
                nested = [folder for folder in listing.folders if listing.has_frames and _has_frames(folder)]
                if nested:
                    self.notes.append(f"folders of camera {name} were not read: {listed_files(nested)}")
            columns.append(frames_of(source, f"camera {name}"))
        self.files = tuple(columns)

    def _pass_over(self, files: Collection[pathlib.Path], where: str) -> None:
        if files:
            self.notes.append(f"{listed_files(files)} {where} {'was' if len(files) == 1 else 'were'} not read")


def discover(
    path: str | os.PathLike[str],
    loose: UngroupedImages | None,
    claimed: Collection[pathlib.Path],
    topics: Sequence[str] | None = None,
) -> Source:
    """Find the frames of a clip in one camera's video, in a bag, or in a folder as `Source.in_folder` says.

    Raises:
        UsageError: there is no such folder, video or bag, topics of what is no bag; and as `Source.in_folder` and
            `Recording.of`.
        MissingBackendError: as `Source.in_folder`, or PyAV or rosbags is not installed.
    """
    place = pathlib.Path(path)
    if is_bag(place):
        return Source.in_bag(place, topics)
    if topics is not None:
        raise UsageError(
            "topics are of recorded bags, and this is none",
            got=readable(place),
            allowed="a folder of rosbag2, or a file .mcap or .db3",
        )
    if os.path.isfile(place) and place.suffix.lower() in video.SUFFIXES:
        return Source.in_video(place)
    if not os.path.isdir(place):
        raise no_folder("frames", place)
    return Source.in_folder(place, loose, claimed)


def companion_of(folder: pathlib.Path) -> str | None:
    """What a folder holds by its name, if it belongs to frames beside it: `masks` or `keypoints`; else None."""
    return _COMPANIONS.get(folder.name.lower())


def no_folder(kind: str, path: pathlib.Path) -> UsageError:
    """The error of a path that should have been a folder."""
    what = f"the path of the {kind} is not a folder" if os.path.lexists(path) else f"there is no such folder of {kind}"
    return UsageError(what, got=readable(path), allowed=f"a folder with {LAYOUT}")


def _root(path: pathlib.Path, loose: UngroupedImages | None, claimed_paths: Collection[str]) -> pathlib.Path:
    """The folder that the frames lie in."""
    frames = path / "frames"
    if not os.path.isdir(frames):
        if os.path.lexists(frames):
            raise no_folder("frames", frames)
        return _images_root(path, loose, claimed_paths)
    listing = Listing.of(path)
    if loose is not None and listing.images and _has_frames_below(frames):
        raise _two_readings(listing, [frames], loose)
    return frames


def _images_root(path: pathlib.Path, loose: UngroupedImages | None, claimed_paths: Collection[str]) -> pathlib.Path:
    """The folder's `images` where it stands for `frames`, as in data sets of other projects; else the folder itself."""
    images = path / "images"
    if not os.path.isdir(images) or os.path.realpath(images) in claimed_paths or not _has_frames_below(images):
        return path
    listing, inside = Listing.of(path), Listing.of(images)
    if inside.images and loose is None:
        return path  # a camera of that name
    if listing.images and loose is not None:
        raise _two_readings(listing, [images], loose)
    beside = [folder for folder in listing.folders if folder not in (images, path / TRUE_DEPTH)]
    others = [folder for folder in beside if not companion_of(folder) and _has_frames(folder)]
    if listing.videos or not others:
        return path if listing.videos else images
    raise UsageError(
        "there is a folder `images` and others that hold images: it may hold all frames, or those of one camera",
        got=f"{readable(path)}: {_counted([images, *others])}",
        allowed=f"the frames in images/, or a camera per folder: images, {listed_files(others)}",
        hint=f"name {readable(images)} itself, or rename it",
    )


def _has_frames(folder: pathlib.Path) -> bool:
    return Listing.of(folder).has_frames


def _has_frames_below(folder: pathlib.Path) -> bool:
    listing = Listing.of(folder)
    return listing.has_frames or any(_has_frames(inner) for inner in listing.folders)


def _two_readings(listing: Listing, holding: list[pathlib.Path], loose: UngroupedImages) -> UsageError:
    companions = [folder for folder in holding if companion_of(folder) and _matches(folder, listing)]
    hint = f"move the folders elsewhere to run the images, or the images to run the folders: {listed_files(holding)}"
    if companions:
        flags = " ".join(f"--{companion_of(folder)} {readable(folder)}" for folder in companions)
        rest = [folder for folder in holding if folder not in companions]
        moves = f"move elsewhere: {listed_files(rest)}" if rest else "or move them elsewhere"
        hint = f"{flags}, as they are named like the images; {moves}"
    return UsageError(
        "images and folders of images lie side by side: either may be the frames",
        got=f"{readable(listing.folder)}: {listing.counted}; {_counted(holding)}",
        allowed=(
            f"{'a view' if loose is UngroupedImages.VIEWS else 'a time'} per image ({listed_files(listing.images)}),"
            f" or a camera per folder ({listed_files(holding)})"
        ),
        hint=hint,
    )


def _camera_or_companion(folder: pathlib.Path, others: list[pathlib.Path]) -> UsageError:
    name, kind = folder.name, companion_of(folder)
    return UsageError(
        f"the folder {name} among the frames holds images: it may be a camera, or the {kind} of the frames",
        got=f"{readable(folder.parent)}: {listed([name, *(readable(other.name) for other in others)])}",
        allowed=f"{kind} beside the folder of the frames, or a camera of another name",
        hint=f"--{kind} {readable(folder)}" if others else f"name the folder {readable(folder)} itself, or rename it",
    )


def _matches(folder: pathlib.Path, listing: Listing) -> bool:
    """Whether a folder's images are named as those beside it."""
    stems = {path.stem for path in Listing.of(folder).images}
    return all(path.stem in stems for path in listing.images)


def _counted(folders: list[pathlib.Path]) -> str:
    parts = [
        f"{readable(folder.name)}/ with {Listing.of(folder).counted or 'folders of frames'}" for folder in folders[:3]
    ]
    return "; ".join(parts + ["..."] * (len(folders) > 3))


def _nothing(listing: Listing) -> UsageError | MissingBackendError:
    image = next(iter(listing.images), None)
    if image is None and listing.heic:
        return listing.without_heic()
    hint = unread_note(listing.unread, "there")
    if bags := bag_files(listing.folder):
        hint = f"a bag without metadata.yaml is read by its file: {readable(bags[0])}"
    if image is not None:
        hint = f"move the images into a folder per camera, as {readable(listing.folder / 'cam0' / image.name)}"
    return UsageError(
        "the frames' folder has no camera folders", got=readable(listing.folder), allowed=LAYOUT, hint=hint
    )
