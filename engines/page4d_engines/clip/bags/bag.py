"""`Bag`: a recorded ROS 2 bag, any of its messages by the place where it was recorded."""

from __future__ import annotations

import os
import pathlib
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from page4d.errors import MissingBackendError, OutOfMemoryError, Page4DError, UsageError
from page4d_engines.clip.names import readable

SUFFIXES = (".mcap", ".db3")
_METADATA = "metadata.yaml"
_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo")


@dataclass(frozen=True)
class Place:
    """Where a message is: when it was recorded on its topic, in nanoseconds, and how many of that moment are before."""

    recorded: int
    before: int


class Bag:
    """A bag: a folder of rosbag2, or one of its files, MCAP or SQLite. May be used from several threads.

    A message is read where it is asked for, so that none is kept. Types of messages are the project's own copy of
    ROS 2's, not those that the bag brings along: reading those would mean running code that is made of them.

    Args:
        path: the folder or the file.

    Attributes:
        path: of the folder or the file.
        types: by topic the name of its type of messages; only topics of images and of calibration.
        others: how many other topics there are.

    Raises:
        MissingBackendError: rosbags is not installed.
        UsageError: it is no bag, or one that cannot be read.
    """

    def __init__(self, path: pathlib.Path) -> None:
        try:
            from rosbags.rosbag2 import Reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise MissingBackendError(
                "bags are read by rosbags, which is not installed",
                got=readable(path),
                hint='pip install "page4d[bags]"',
            ) from None
        self.path = path
        self._lock = threading.Lock()
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        with self._in_words(f"the bag {readable(path.name)}"):
            if not os.path.isdir(path) and not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("it is not a regular file")
            self._reader = Reader(path)
            self._reader.open()
            weakref.finalize(self, self._reader.close)  # a compressed bag has a temporary folder
            topics = {connection.topic: connection.msgtype for connection in self._reader.connections}
        self.types = {topic: kind for topic, kind in topics.items() if kind in _TYPES}
        self.others = len(topics) - len(self.types)

    def topics(self, *kinds: str) -> list[str]:
        """The topics whose messages are `sensor_msgs/msg/<one of kinds>`."""
        types = [f"sensor_msgs/msg/{kind}" for kind in kinds]
        return [topic for topic, kind in self.types.items() if kind in types]

    def messages(self, topic: str) -> Iterator[tuple[Place, Any]]:
        """All messages of a topic in the order in which they were recorded, one after the other.

        Until the iterator ends or is closed, every other call for messages waits.

        Raises:
            UsageError: the bag is damaged, or a message is.
        """
        place: Place | None = None
        with self._lock, self._in_words(f"topic {topic}"):
            for recorded, content in self._contents(topic):
                before = place.before + 1 if place is not None and place.recorded == recorded else 0
                place = Place(recorded, before)
                yield place, self._message(topic, content)

    def message(self, topic: str, place: Place, what: str) -> Any:
        """A message by its place; errors call it `what`.

        Raises:
            UsageError: the bag has changed, or is damaged.
        """
        with self._lock, self._in_words(what):
            contents = self._contents(topic, place.recorded, place.recorded + 1)
            for number, (_, content) in enumerate(contents):
                if number == place.before:
                    return self._message(topic, content)
            raise EOFError("it is not there any more")

    def _contents(self, topic: str, start: int | None = None, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        for _, recorded, content in self._reader.messages(connections, start, stop):
            yield recorded, content

    def _message(self, topic: str, content: bytes) -> Any:
        return self._store.deserialize_cdr(content, self.types[topic])

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        try:
            yield
        except Page4DError:
            raise
        except MemoryError:
            raise OutOfMemoryError(
                f"{what} is too large for the memory that is left", got=readable(self.path)
            ) from None
        except Exception as error:  # the readers check little: what a damaged bag raises is of any kind
            # a topic's name may hold line breaks, and so may what a library says of it
            reason = " ".join(str(error).split()).replace(str(self.path), readable(self.path.name))
            raise UsageError(
                f"{' '.join(what.split())} cannot be read: {reason or type(error).__name__}",
                got=readable(self.path),
                allowed=f"a whole bag of ROS 2: a folder with {_METADATA}, or a file {' '.join(SUFFIXES)}",
                hint="a recording that was cut off: `ros2 bag reindex FOLDER`, or `mcap recover FILE -o NEW`",
            ) from None


def is_bag(path: pathlib.Path) -> bool:
    """Whether a path names a bag: a file with a bag's suffix, or a folder that holds such files and their metadata."""
    if not os.path.isdir(path):
        return path.suffix.lower() in SUFFIXES and os.path.lexists(path)
    return os.path.isfile(path / _METADATA) and bool(bag_files(path))


def bag_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of bags that lie in a folder; compressed ones have a suffix more."""
    suffixes = (*SUFFIXES, *(f"{suffix}.zstd" for suffix in SUFFIXES))
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []  # whoever lists it gets the error
    return [folder / name for name in names if name.lower().endswith(suffixes)]
