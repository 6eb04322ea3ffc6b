"""`Video`: one camera's frames in a video file, any of them by its number."""

from __future__ import annotations

import functools
import os
import pathlib
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import Image

from page4d.errors import MissingBackendError, UsageError
from page4d_engines.clip.frame import Header, NumberedFrame
from page4d_engines.clip.levels import Channel
from page4d_engines.clip.names import readable

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
_NEAR = 32  # frames ahead up to which it is faster to decode on than to seek a key frame
_TURN = Image.Transpose
_TURNS = {90: _TURN.ROTATE_90, 180: _TURN.ROTATE_180, 270: _TURN.ROTATE_270}  # against the clock, by what the file says


class Video:
    """A video file. In order, a frame costs its decoding; any other is decoded from the key frame before it.

    Frames are counted and known by the times that the file gives them, without decoding. Where it gives none, or such
    that cannot be (AVI has no place for the times of frames that are stored in another order than they are shown in),
    the file is decoded once to count them, and they are known by their place in that order: going back then means
    decoding from the start. May be used from several threads.

    Args:
        path: the file.
        what: errors call it.

    Attributes:
        size: width and height, turned as the file says.
        start: the time of the first frame by the file's own clock, in seconds; 0 where there are no times.
        times: of every frame, in seconds after the first, rising; None where the file has none.
        others: how many more videos are in the file, which are not read.

    Raises:
        MissingBackendError: PyAV is not installed.
        UsageError: no regular file, not a video, or one whose first frame cannot be decoded.
    """

    def __init__(self, path: pathlib.Path, what: str) -> None:
        try:
            import av
        except ImportError:
            raise MissingBackendError(
                "videos are decoded by PyAV, which is not installed",
                got=readable(path),
                hint='pip install "page4d[video]"',
            ) from None
        self.path = path
        self._open = functools.partial(av.open, f"file:{path}")  # a name with a colon would be taken for a protocol
        self._damaged = (av.error.FFmpegError, OSError, ValueError, EOFError)
        self._lock = threading.Lock()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = 0  # the number of the frame that is decoded next
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("it is not a regular file")
            with self._open() as container:
                cover = av.stream.Disposition.attached_pic
                self.others = sum(not track.disposition & cover for track in container.streams.video) - 1
                track = _track(container)
                unit, keeps_order = track.time_base, "avi" in container.format.name
                shown = [packet for packet in container.demux(track) if packet.size and not packet.is_discard]
            stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
            slots = sorted(packet.dts for packet in shown if packet.dts is not None)
            self._stamps: list[int] | None = None
            if len(stamps) == len(set(stamps)) == len(shown) and not (keeps_order and self._reorders()):
                self._stamps, self._count = stamps, len(stamps)
            else:
                self._count = self._counted()
            if not self._count:
                raise ValueError("it has no frames")
            first = self._frame(0)
        except self._damaged as error:
            raise self._unreadable(what, error) from None
        sides = (first.width, first.height)
        self.size: tuple[int, int] = sides[::-1] if first.rotation % 180 else sides
        if self._stamps is None:  # frames are shown one after the other, as far apart as they are stored
            stamps = slots if len(slots) == len(set(slots)) == self._count else []
        self.times, self.start = _seconds(stamps, unit)

    @property
    def count(self) -> int:
        """Of frames."""
        return self._count

    def image(self, number: int, what: str) -> Image.Image:
        """A frame, RGB, turned as the file says; errors call it `what`.

        Raises:
            UsageError: it cannot be decoded.
        """
        try:
            with self._lock:
                frame = self._frame(number)
            image: Image.Image = frame.to_image()
        except self._damaged as error:
            raise self._unreadable(what, error) from None
        turn = _TURNS.get(frame.rotation % 360)
        return image if turn is None else image.transpose(turn)

    def _reorders(self) -> bool:
        """Whether frames are stored in another order than they are shown in."""
        with self._open() as container:
            track = _track(container)
            next(container.decode(track), None)
            return bool(track.codec_context.has_b_frames)

    def _counted(self) -> int:
        with self._open() as container:
            return sum(1 for _ in container.decode(_track(container)))

    def _frame(self, number: int) -> Any:
        is_ahead = self._container is not None and self._next <= number
        if not is_ahead or (self._stamps is not None and number >= self._next + _NEAR):
            self._go_to(0 if self._stamps is None else number)
        frame = self._decode_to(number)
        if frame is None and number > 0:
            # some files are sought by the order in which frames are stored: the key frame may lie behind the frame
            self._go_to(0)
            frame = self._decode_to(number)
        if frame is None:
            self._container = None
            raise EOFError("it is not there")
        return frame

    def _decode_to(self, number: int) -> Any:
        """The frame, if what is decoded next is not behind it."""
        if self._stamps is None:
            for frame in self._decoded:
                self._next += 1
                if self._next == number + 1:
                    return frame
            return None
        stamp: Any = self._stamps[number]
        for frame in self._decoded:
            if frame.pts == stamp:
                self._next = number + 1
                return frame
            if frame.pts is not None and frame.pts > stamp:
                break
        return None

    def _go_to(self, number: int) -> None:
        """Decode from a key frame at or before a frame."""
        if self._container is None or number == 0:
            self._container = self._open()
        track = _track(self._container)
        if number > 0 and self._stamps is not None:
            self._container.seek(self._stamps[number], stream=track)
        self._decoded, self._next = self._container.decode(track), 0

    def _unreadable(self, what: str, error: BaseException) -> UsageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UsageError(
            f"{what} cannot be read: {reason}",
            got=readable(self.path),
            allowed=f"a whole video that FFmpeg decodes: {' '.join(SUFFIXES)}",
        )


def _seconds(stamps: list[int], unit: Fraction) -> tuple[tuple[float, ...] | None, float]:
    """Seconds after the first, None where there are none; and the first's own."""
    if not stamps or not unit:
        return None, 0.0
    return tuple(float((stamp - stamps[0]) * unit) for stamp in stamps), float(stamps[0] * unit)


def _track(container: Any) -> Any:
    """The file's moving picture, rather than the one on its cover."""
    track = container.streams.best("video")
    if track is None:
        raise ValueError("it has no video in it")
    return track


@dataclass(frozen=True)
class VideoFrame(NumberedFrame):
    """A frame of a video."""

    video: Video
    number: int

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.stem} of {readable(self.video.path.name)}"

    @property
    def file(self) -> pathlib.Path:
        """The file that holds it."""
        return self.video.path

    def header(self, what: str) -> Header:
        """Width and height, those of the video's first frame."""
        return Header(self.video.size)

    def image(self, what: str, over_white: bool = False) -> Image.Image:
        """The frame as RGB; errors call it `what`. Videos have no transparency to lay over white.

        Raises:
            UsageError: it cannot be decoded.
        """
        return self.video.image(self.number, what)

    def channel(self, what: str) -> Channel:
        """The frame as a single channel; errors call it `what`.

        Raises:
            UsageError: it cannot be decoded.
        """
        return Channel.of(self.image(what))
