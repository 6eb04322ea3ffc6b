"""`WindowReader`: a clip's frames as the engine's inputs, window by window.

The next window is decoded while the caller works on this one.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera, fundamental
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.system.plain_text import counted
from page4d_engines.clip.companions import Size, by
from page4d_engines.clip.da3.sizes import PROCESS_RES, common_size, side_for
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode, PhotoWay, keeps_aspect, scaled_as_vggt
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.names import listed

_MOST_SENTENCES = 20  # on the sizes of frames


def windows(count: int, T: int, stride: int) -> list[range]:
    """The windows of T frames that cover `count` frames.

    They begin at 0, stride, 2 stride, ...; where frames are left over, a last window ends with them.

    Raises:
        UsageError: fewer frames than T, or a stride below 1 or above T (which would skip frames).
    """
    if not 1 <= stride <= T:
        raise UsageError(
            "the stride between windows is out of range",
            got=stride,
            allowed=f"1 to T = {T}",
            hint=f"--stride {min(max(stride, 1), T)}",
        )
    if count < T:
        hint = f"page4d-export --T {max(count, 1)}, or more frames"
        raise UsageError(
            "the clip has fewer frames than a window", got=f"{count} frames", allowed=f"T = {T} or more", hint=hint
        )
    starts = list(range(0, count - T + 1, stride))
    if starts[-1] + T < count:
        starts.append(count - T)
    return [range(start, start + T) for start in starts]


@dataclass(frozen=True)
class Fits:
    """A `Fit` for each size that the frames of a clip have.

    Attributes:
        by_size: by width and height of the frames.
        mode: what becomes of another aspect ratio; None where the frames have the engine's.
        way: whose public code `FitMode.PUBLISHED` follows.
    """

    by_size: dict[Size, Fit]
    mode: FitMode | None
    way: PhotoWay = PhotoWay.VGGT

    @classmethod
    def choose(cls, folder: FrameFolder, layout: Layout, mode: FitMode | None, way: PhotoWay | None = None) -> Fits:
        """The fits of a clip's frames.

        Args:
            folder: the clip.
            layout: the engine's.
            mode: what becomes of another aspect ratio, and of frames of different sizes, each of which is fitted by
                itself.
            way: that of the engine's model. With one, a mode of None stands for `FitMode.PUBLISHED` where that brings
                the frames to just the engine's size. Where it does not, and without a way, None is for frames of one
                size that have the engine's aspect ratio. Without a way `FitMode.PUBLISHED` is VGGT's.

        Raises:
            UsageError: another aspect ratio or different sizes without a mode; an engine that is not of the size that
                a mode of public code gives these frames.
        """
        sizes = list(dict.fromkeys(itertools.chain.from_iterable(folder.sizes)))
        if mode is None and way is not None:
            is_plain = len(sizes) == 1 and keeps_aspect(sizes[0], layout)
            mode = FitMode.PUBLISHED if not is_plain or _is_published_size(sizes, layout, way) else None
        if mode is FitMode.PUBLISHED and way is PhotoWay.DA3:
            side = _da3_side(sizes, layout)
            return cls({size: Fit.as_da3(size, layout, side) for size in sizes}, mode, way)
        if mode is FitMode.PUBLISHED:
            _check_height(sizes, layout)
        if mode is None:
            _check_sizes(folder)
        return cls({size: Fit.choose(size, layout, mode) for size in sizes}, mode)

    @property
    def over_white(self) -> bool:
        """Whether frames with transparent parts are laid over white, as VGGT's public code does."""
        return self.mode in (FitMode.PUBLISHED, FitMode.PUBLISHED_PAD) and self.way is PhotoWay.VGGT

    def sentences(self, folder: FrameFolder) -> list[str]:
        """What is done to the frames of the clip, a sentence for each of their sizes."""
        sentences = [fit.sentence(f"{folder.kind}s") for fit in self.by_size.values()]
        if len(sentences) > _MOST_SENTENCES:
            more = len(sentences) - _MOST_SENTENCES
            sentences[_MOST_SENTENCES:] = [f"{folder.kind}s of {more} more sizes were fitted likewise"]
        if self.over_white and folder.transparent:
            verb = "was" if len(folder.transparent) == 1 else "were"
            number = counted(len(folder.transparent), folder.kind)
            sentences.append(f"{number} with transparent parts {verb} laid over white: {listed(folder.transparent)}")
        return sentences


@dataclass(frozen=True)
class WindowInputs:
    """What the engine reads of one window; arrays allocated once and filled again and again.

    Attributes:
        images: RGB, uint8 `[T,V,H,W,3]`.
        mask_ext: mean of the external mask over each patch, float32 `[T,V,P,1]` in 0..1; zero without masks.
        keypoints: the same of the keypoint maps; None where the engine reads none.
        fundamental: float32 `[V,V,3,3]` in pixels of the engine's images; None where the engine reads none.
        present: which images there are, bool `[T,V]`; of the others all is zero.
    """

    images: NDArray[np.uint8]
    mask_ext: NDArray[np.float32]
    keypoints: NDArray[np.float32] | None
    fundamental: NDArray[np.float32] | None
    present: NDArray[np.bool_]

    @classmethod
    def allocate(cls, layout: Layout, keypoints: bool, lines: NDArray[np.float32] | None) -> WindowInputs:
        """Zeros in the layout's shapes."""
        maps = np.zeros(layout.patch_map_shape, np.float32) if keypoints else None
        return cls(
            images=np.zeros(layout.images_shape, np.uint8),
            mask_ext=np.zeros(layout.patch_map_shape, np.float32),
            keypoints=maps,
            fundamental=lines,
            present=np.ones(layout.image_map_shape, np.bool_),
        )

    def blank(self, row: int, v: int) -> None:
        """Zeros in place of an image."""
        self.images[row, v], self.mask_ext[row, v] = 0, 0
        if self.keypoints is not None:
            self.keypoints[row, v] = 0

    def take(self, row: int, other: WindowInputs, source: int) -> None:
        """Copy a timestep of another window."""
        self.images[row], self.mask_ext[row] = other.images[source], other.mask_ext[source]
        self.present[row] = other.present[source]
        if self.keypoints is not None and other.keypoints is not None:
            self.keypoints[row] = other.keypoints[source]


class WindowReader:
    """Reads windows of a `FrameFolder` into two sets of arrays in turn.

    Args:
        folder: the clip.
        layout: the engine's; for one clip (B = 1).
        mode: what becomes of another aspect ratio, and of frames of different sizes, each of which is fitted by itself;
            None makes both an error, except as `way` says.
        wants_keypoints: whether the engine reads keypoint maps.
        wants_cameras: whether it reads fundamental matrices.
        way: whose public code a mode of None follows where that gives the engine's size; see `Fits.choose`.

    Attributes:
        folder: the clip; its images are laid over white where the mode is one of VGGT's.
        fits: how its frames come to the engine's size.
        present: which images of the clip there are, bool `[timesteps,V]`.
        decode_seconds: seconds that reading each window so far took, most of them while the caller worked.

    Raises:
        UsageError: B is not 1, another number of cameras than V, no keypoints or cameras where the engine reads them,
            another aspect ratio, different sizes.
    """

    def __init__(
        self,
        folder: FrameFolder,
        layout: Layout,
        mode: FitMode | None,
        wants_keypoints: bool,
        wants_cameras: bool,
        way: PhotoWay | None = None,
    ) -> None:
        if layout.B != 1:
            raise UsageError(
                "frames are read for one clip at a time", got=f"B = {layout.B}", allowed="an engine for B = 1"
            )
        if len(folder.camera_names) != layout.V:
            kind = "photos" if folder.photos else "cameras"
            got = f"{len(folder.camera_names)} {kind}: {', '.join(folder.camera_names)}"
            hint = f"page4d-export --T {layout.T} --V {len(folder.camera_names)}"
            if folder.is_bag:
                hint = f"--topics A,B,.. with {layout.V} of the bag's topics, or {hint}"
            what = "the clip has another number of cameras than the engine has views"
            raise UsageError(what, got=got, allowed=f"V = {layout.V}", hint=hint)
        if wants_keypoints and folder.keypoint_files is None:
            where = "keypoints/<camera>/<frame>.png beside the frames"
            raise UsageError(
                "the engine reads keypoint maps, and the clip has none", allowed=where, hint="--keypoints FOLDER"
            )
        if wants_cameras and folder.cameras is None:
            what = "the engine reads the cameras (for its epipolar prior), and the clip has none"
            raise UsageError(what, allowed="cameras.json beside the frames", hint="--cameras FILE")
        self.fits = Fits.choose(folder, layout, mode, way)
        self.folder, self.layout = dataclasses.replace(folder, over_white=self.fits.over_white), layout
        self.decode_seconds: list[float] = []
        self.present = folder.present
        lines = None
        if wants_cameras and folder.cameras is not None:
            lines = fundamental(self.rig(0).values()).astype(np.float32)
        self._sets = (
            WindowInputs.allocate(layout, wants_keypoints, lines),
            WindowInputs.allocate(layout, wants_keypoints, lines),
        )
        self._reading = False

    def fit(self, t: int, v: int) -> Fit:
        """How the frame of timestep t and view v comes to the engine's size."""
        return self.fits.by_size[self.folder.sizes[v][t]]

    def rig(self, t: int) -> dict[str, Camera]:
        """The views' cameras at timestep t, in pixels of the engine's images; none where the clip has none."""
        cameras = self.folder.cameras or {}
        return {name: self.fit(t, v).camera(camera) for v, (name, camera) in enumerate(cameras.items())}

    def read(self, of: Sequence[range]) -> Generator[tuple[range, WindowInputs], None, None]:
        """Each window with its inputs, which stay as they are until the window after it is asked for.

        Closing the iterator early ends the thread that reads ahead.

        Raises:
            UsageError: a window that is not T frames of the clip; an image that cannot be decoded, when its window is
                asked for.
        """
        for window in of:
            if len(window) != self.layout.T or window.step < 1 or window[0] < 0 or window[-1] >= self.folder.count:
                raise UsageError(
                    "this is no window of the clip",
                    got=window,
                    allowed=f"T = {self.layout.T} frames of 0 to {self.folder.count - 1}",
                )
        if self._reading:
            raise RuntimeError("the reader's arrays are in use by another iterator")
        self._reading, stop = True, threading.Event()
        self.decode_seconds.clear()
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="page4d-frames")
        try:
            ahead = pool.submit(self._fill, of[0], self._sets[0], stop, None) if of else None
            for index, window in enumerate(of):
                assert ahead is not None
                self.decode_seconds.append(ahead.result())
                if index + 1 < len(of):
                    ahead = pool.submit(
                        self._fill, of[index + 1], self._sets[(index + 1) % 2], stop, (window, self._sets[index % 2])
                    )
                yield window, self._sets[index % 2]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            self._reading = False

    def _fill(
        self, window: range, inputs: WindowInputs, stop: threading.Event, before: tuple[range, WindowInputs] | None
    ) -> float:
        """Read one window, and copy the frames that the one before has, too; returns the seconds that it took."""
        began = time.perf_counter()
        for row, t in enumerate(window):
            if before is not None and t in before[0]:
                inputs.take(row, before[1], before[0].index(t))
                continue
            for v in range(self.layout.V):
                if stop.is_set():
                    break
                inputs.present[row, v] = self.present[t, v]
                if not self.present[t, v]:
                    inputs.blank(row, v)
                    continue
                fit = self.fit(t, v)
                inputs.images[row, v] = fit.image(self.folder.image(t, v))
                if self.folder.mask_files is not None:
                    inputs.mask_ext[row, v] = fit.patch_mean(self.folder.mask(t, v))
                if inputs.keypoints is not None:
                    inputs.keypoints[row, v] = fit.patch_mean(self.folder.keypoints(t, v))
        return time.perf_counter() - began


def _height(sizes: list[Size], width: int) -> int:
    """Rows of the images that VGGT's public code makes of frames of these sizes: those of the highest."""
    return max(min(scaled_as_vggt(size, width)[1], width) for size in sizes)


def _is_published_size(sizes: list[Size], layout: Layout, way: PhotoWay) -> bool:
    if way is PhotoWay.DA3:
        return side_for(sizes, layout) is not None
    try:
        return _height(sizes, layout.W) == layout.H
    except UsageError:
        return False


def _da3_side(sizes: list[Size], layout: Layout) -> int:
    """Pixels of the longer side, with which Depth Anything 3's public code gives just the engine's size."""
    side = side_for(sizes, layout)
    if side is not None:
        return side
    width, height = common_size(sizes)
    any_size = f"--fit {'|'.join(TO_ANY_SIZE)}"
    photos = f"frames of {listed([by(size) for size in sizes])}"
    if min(width, height) < Layout.PATCH:
        raise UsageError(
            "Depth Anything 3's public code cannot scale frames of this aspect ratio",
            got=f"{photos}, of which {width}x{height} would be left",
            allowed=f"a patch of {Layout.PATCH} pixels on each side, where the longer one has {PROCESS_RES}",
            hint=any_size,
        )
    raise UsageError(
        f"Depth Anything 3's public code brings these frames to another size than the engine's {layout.W}x{layout.H}"
        " (width x height)",
        got=photos,
        allowed=f"an engine of {width}x{height}",
        hint=f"page4d-export --height {height} --width {width}, or {any_size}",
    )


def _check_height(sizes: list[Size], layout: Layout) -> None:
    height = _height(sizes, layout.W)
    if height == layout.H:
        return
    modes = [*TO_ANY_SIZE, *([FitMode.PUBLISHED_PAD] if layout.W == layout.H else [])]
    raise UsageError(
        f"VGGT's public code brings these frames to another size than the engine's {layout.W}x{layout.H}"
        " (width x height)",
        got=f"frames of {listed([by(size) for size in sizes])}",
        allowed=f"an engine of {layout.W}x{height}",
        hint=f"page4d-export --height {height} --width {layout.W}, or --fit {'|'.join(modes)}",
    )


def _check_sizes(folder: FrameFolder) -> None:
    """All frames must be of one size."""
    first = folder.sizes[0][0]
    for name, column, row in zip(folder.camera_names, folder.frame_files, folder.sizes, strict=True):
        for file, size in zip(column, row, strict=True):
            if size != first:
                raise UsageError(
                    f"the frames are of different sizes: camera {name}, frame {file.name}",
                    got=by(size),
                    allowed=f"{by(first)}, as camera {folder.camera_names[0]}, frame {folder.frame_files[0][0].name}",
                    hint=f"--fit {'|'.join(TO_ANY_SIZE)}: each is fitted by itself",
                )
