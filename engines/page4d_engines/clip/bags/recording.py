"""`Recording`: which topics of a bag are cameras, and their images in the order of their stamps."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d_engines.clip.bags.bag import Bag, Place
from page4d_engines.clip.bags.calibration import calibration_of
from page4d_engines.clip.bags.frame import BagFrame
from page4d_engines.clip.bags.picture import is_raw, size_of
from page4d_engines.clip.names import listed, natural, readable

_IMAGES = ("Image", "CompressedImage")
_COMPRESSED = "/compressed"  # what image_transport appends to the topic of the images


@dataclass(frozen=True)
class Recording:
    """The cameras of a bag.

    Attributes:
        names: of the cameras: their topics, with dots for slashes.
        files: `[V][frames]`, by their stamps.
        calibration: by the cameras' names, at identity poses; empty unless the bag has that of every camera.
        notes: sentences about what was not read.
    """

    names: tuple[str, ...]
    files: tuple[tuple[BagFrame, ...], ...]
    calibration: dict[str, Camera]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: pathlib.Path, topics: Sequence[str] | None) -> Recording:
        """The cameras of a bag, which is read once for stamps and sizes; images are decoded where they are asked for.

        Args:
            path: the bag.
            topics: of the cameras, or the cameras' names, in the order of the views; None takes all topics of images
                that can be read, in natural order, and of images that are there twice the uncompressed ones.

        Raises:
            MissingBackendError: rosbags is not installed.
            UsageError: no bag, a damaged one, topics that it has not, images that cannot be read.
        """
        bag = Bag(path)
        notes: list[str] = []
        chosen = _all_topics(bag, notes) if topics is None else _checked(bag, topics)
        names = tuple(_name(topic) for topic in chosen)
        for name in names:
            if names.count(name) > 1 or not name:
                same = [topic for topic in chosen if _name(topic) == name]
                got = listed([readable(topic) or "an empty name" for topic in same])
                raise UsageError("topics do not give cameras names of their own", got=got, allowed="each topic once")
        files = tuple(_frames(bag, topic, notes) for topic in chosen)
        calibration, lens_notes = calibration_of(bag, names, [column[0] for column in files])
        return cls(names, files, calibration, (*notes, *lens_notes))


def _checked(bag: Bag, topics: Sequence[str]) -> list[str]:
    known = bag.topics(*_IMAGES)
    by_name = {_name(topic): topic for topic in known}
    full = [topic if topic in known else by_name.get(_name(topic), topic) for topic in topics]
    unknown = [topic for topic, path in zip(topics, full, strict=True) if path not in known]
    if unknown or not topics:
        raise UsageError(
            "the bag has no such topic of images",
            got=listed(unknown) or "no topics",
            allowed=listed(sorted(known, key=natural), 20) or "none: the bag has no topics of images",
        )
    return full


def _all_topics(bag: Bag, notes: list[str]) -> list[str]:
    """Every topic whose first image can be read."""
    known = sorted(bag.topics(*_IMAGES), key=natural)
    twice = [topic for topic in known if topic.endswith(_COMPRESSED) and topic.removesuffix(_COMPRESSED) in known]
    errors: dict[str, UsageError] = {}
    chosen: list[str] = []
    patterns: list[str] = []
    for topic in [topic for topic in known if topic not in twice]:
        what = f"the first image of topic {topic}"
        try:
            first = next(bag.messages(topic), None)
            if first is None:
                raise UsageError(f"topic {topic} has no images", got=readable(bag.path))
            size_of(first[1], what)
        except UsageError as error:
            errors[topic] = error
        else:
            (patterns if is_raw(first[1]) else chosen).append(topic)
    coloured = {_namespace(topic) for topic in chosen} - {""}
    raw = [topic for topic in patterns if _namespace(topic) in coloured]
    chosen = [topic for topic in known if topic in chosen or topic in set(patterns) - set(raw)]
    if not chosen:
        if errors:
            raise next(iter(errors.values()))
        kinds = ", ".join(f"sensor_msgs/{kind}" for kind in _IMAGES)
        raise UsageError("the bag has no topics of images", got=readable(bag.path), allowed=kinds)
    if twice:
        notes.append(f"topics of images that are there uncompressed, too, were not read: {listed(twice)}")
    if raw:
        notes.append(f"topics of Bayer patterns beside others of the same camera were not read: {listed(raw)}")
    if errors:
        notes.append(f"topics whose images cannot be read were left out: {listed(list(errors))}")
    return chosen


def _namespace(topic: str) -> str:
    """What topics of one camera have in common."""
    return topic.rpartition("/")[0]


def _name(topic: str) -> str:
    """A camera's name: such as may be a folder's."""
    return re.sub(r"[^\w.-]+", "_", readable(topic).strip("/").replace("/", ".")).lstrip(".")


def _frames(bag: Bag, topic: str, notes: list[str]) -> tuple[BagFrame, ...]:
    """The images of a topic, by their stamps."""
    entries: list[tuple[int, Place, tuple[int, int]]] = []
    for place, message in bag.messages(topic):
        size = size_of(message, f"image {len(entries)} of topic {topic}")
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        entries.append((stamp, place, size))
    if not entries:
        raise UsageError(f"topic {topic} has no images", got=readable(bag.path))
    if not any(stamp for stamp, _, _ in entries):
        notes.append(f"images of {topic} have no stamps: the times at which they were recorded were taken")
        entries = [(place.recorded, place, size) for _, place, size in entries]
    by_stamp = {stamp: (place, size) for stamp, place, size in reversed(entries)}
    if len(by_stamp) < len(entries):
        notes.append(f"{len(entries) - len(by_stamp)} images of {topic} repeat a stamp, and were not read")
    return tuple(
        BagFrame(bag=bag, topic=topic, number=number, stamp=stamp, place=by_stamp[stamp][0], size=by_stamp[stamp][1])
        for number, stamp in enumerate(sorted(by_stamp))
    )
