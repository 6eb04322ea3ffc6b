"""`Video`: one camera's frames in a video file, any of them by its number."""

from __future__ import annotations

import functools
import pathlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from page4d.errors import MissingBackendError, UsageError

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
_NEAR = 32  # frames that are rather decoded and passed over than looked for from a key frame
_TURN = Image.Transpose
_TURNS = {90: _TURN.ROTATE_90, 180: _TURN.ROTATE_180, 270: _TURN.ROTATE_270}  # against the clock, by what the file says


class Video:
    """A video file. In order, a frame costs its decoding; any other is decoded from the key frame before it.

    Frames are counted and known by the times that the file gives them, without decoding. May be used from several threads.

    Args:
        path: the file.
        what: it is, in an error.

    Attributes:
        size: width and height, turned as the file says.

    Raises:
        MissingBackendError: PyAV is not installed.
        UsageError: not a video, or one whose first frame cannot be decoded.
    """

    def __init__(self, path: pathlib.Path, what: str) -> None:
        try:
            import av
        except ImportError:
            raise MissingBackendError("videos are decoded by PyAV, which is not installed", got=path, hint='pip install "page4d[video]"') from None
        self.path = path
        self._open = functools.partial(av.open, str(path))
        self._damaged = (av.error.FFmpegError, OSError, ValueError, EOFError)
        self._lock = threading.Lock()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = 0  # the number of the frame that is decoded next
        try:
            with self._open() as container:
                shown = [packet for packet in container.demux(_track(container)) if packet.size and not packet.is_discard]
            if any(packet.pts is None for packet in shown):
                raise ValueError(f"it does not say when its frames are shown; ffmpeg -i {path.name} {path.stem}.mp4 makes a file that does")
            self._times: list[int] = sorted(packet.pts for packet in shown)
            if not self._times:
                raise ValueError("it has no frames")
            first = self._frame(0)
        except self._damaged as error:
            raise self._unreadable(what, error) from None
        sides = (first.width, first.height)
        self.size: tuple[int, int] = sides[::-1] if first.rotation % 180 else sides

    @property
    def count(self) -> int:
        """Of frames."""
        return len(self._times)

    def image(self, number: int, what: str) -> Image.Image:
        """A frame, RGB, turned as the file says; `what` it is in an error.

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

    def _frame(self, number: int) -> Any:
        if self._container is not None and self._next <= number < self._next + _NEAR and (frame := self._decode_to(number)) is not None:
            return frame
        # some files are sought by the order in which frames are stored: the key frame found may lie behind the one that was asked for
        for start in sorted({number, max(0, number - _NEAR), 0}, reverse=True):
            self._go_to(start)
            if (frame := self._decode_to(number)) is not None:
                return frame
        self._container = None
        raise EOFError("it is not there")

    def _decode_to(self, number: int) -> Any:
        """The frame, if what is decoded next is not behind it."""
        for frame in self._decoded:
            if frame.pts == self._times[number]:
                self._next = number + 1
                return frame
            if frame.pts is not None and frame.pts > self._times[number]:
                break
        return None

    def _go_to(self, number: int) -> None:
        """Decode from a key frame at or before a frame."""
        if self._container is None or number == 0:
            self._container = self._open()
        track = _track(self._container)
        if number > 0:
            self._container.seek(self._times[number], stream=track)
        self._decoded, self._next = self._container.decode(track), 0

    def _unreadable(self, what: str, error: BaseException) -> UsageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UsageError(f"{what} cannot be read: {reason}", got=self.path, allowed=f"a whole video that FFmpeg decodes: {' '.join(SUFFIXES)}")


def _track(container: Any) -> Any:
    """The file's first moving picture."""
    if not container.streams.video:
        raise ValueError("it has no video in it")
    return container.streams.video[0]


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video."""

    video: Video
    number: int

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.stem} of {self.video.path.name}"

    @property
    def file(self) -> pathlib.Path:
        """On disk."""
        return self.video.path

    @property
    def stem(self) -> str:
        """What frames, masks and keypoint maps of one time have in common: six digits, from 000000 on."""
        return f"{self.number:06d}"

    def size(self, what: str) -> tuple[int, int]:
        """Width and height, those of the video's first frame."""
        return self.video.size

    def load(self, what: str, mode: str) -> Image.Image:
        """The frame as `RGB` or `L`; `what` it is in an error.

        Raises:
            UsageError: it cannot be decoded.
        """
        return self.video.image(self.number, what).convert(mode)
