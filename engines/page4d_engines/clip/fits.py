"""`Fits`: how the frames of a clip, of one size or of several, come to the engine's size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from page4d.config import Published
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.system.plain_text import counted
from page4d_engines.clip.companions import Size, by
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode, keeps_aspect, scaled_as_vggt
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.names import listed

_MOST_SENTENCES = 20


@dataclass(frozen=True)
class Fits:
    """A `Fit` for each size that the frames of a clip have.

    Attributes:
        by_size: by width and height of the frames.
        mode: what becomes of another aspect ratio; None where the frames have the engine's.
    """

    by_size: dict[Size, Fit]
    mode: FitMode | None

    @classmethod
    def choose(cls, folder: FrameFolder, layout: Layout, mode: FitMode | None, as_published: bool = False) -> Fits:
        """The fits of a clip's frames.

        Args:
            folder: the clip.
            layout: the engine's.
            mode: what becomes of another aspect ratio, and of frames of different sizes, each of which is fitted by
                itself.
            as_published: whether None stands for `FitMode.PUBLISHED` where that scales the largest frame to just the
                engine's height. Where it does not, and where this is false, None is for frames of one size that have
                the engine's aspect ratio.

        Raises:
            UsageError: another aspect ratio or different sizes without a mode; an engine that is not of the size that
                a mode of VGGT's public code gives these frames.
        """
        sizes = list(dict.fromkeys(itertools.chain.from_iterable(folder.sizes)))
        if mode is None and as_published:
            is_plain = len(sizes) == 1 and keeps_aspect(sizes[0], layout)
            mode = FitMode.PUBLISHED if not is_plain or _is_published_height(sizes, layout) else None
        if mode is FitMode.PUBLISHED:
            _check_height(sizes, layout)
        if mode is None:
            _check_sizes(folder)
        return cls({size: Fit.choose(size, layout, mode) for size in sizes}, mode)

    @property
    def over_white(self) -> bool:
        """Whether frames with transparent parts are laid over white, as VGGT's public code does."""
        return self.mode in (FitMode.PUBLISHED, FitMode.PUBLISHED_PAD)

    def sentences(self, folder: FrameFolder) -> list[str]:
        """What is done to the frames of the clip, a sentence for each of their sizes."""
        sentences = [_sentence(fit, f"{folder.kind}s") for fit in self.by_size.values()]
        if len(sentences) > _MOST_SENTENCES:
            more = len(sentences) - _MOST_SENTENCES
            sentences[_MOST_SENTENCES:] = [f"{folder.kind}s of {more} more sizes were fitted likewise"]
        if self.over_white and folder.transparent:
            verb = "was" if len(folder.transparent) == 1 else "were"
            number = counted(len(folder.transparent), folder.kind)
            sentences.append(f"{number} with transparent parts {verb} laid over white: {listed(folder.transparent)}")
        return sentences


def scaled_as_published(model: Mapping[str, Any]) -> bool:
    """Whether a manifest's model was trained on photos that VGGT's public code had scaled: VGGT and PAGE-4D."""
    return model.get("published") in (Published.VGGT, Published.PAGE4D)


def _sentence(fit: Fit, kind: str) -> str:
    left, top, right, bottom = fit.box
    size, engine, (width, height) = fit.source_size, (fit.layout.W, fit.layout.H), fit.target[2:]
    steps = []
    if fit.scaled is None and fit.box != (0, 0, *size):
        steps.append(f"cut to their middle {right - left:.0f}x{bottom - top:.0f}")
    scaled = fit.scaled or (width, height)
    if scaled != size or steps:
        fills = fit.scaled is None and not steps and (width, height) == engine
        alone = "; each axis by itself" if fills and not keeps_aspect(size, fit.layout) else ""
        steps.append(f"scaled to {by(scaled)} (bicubic{alone})")
    if scaled[1] > height:
        steps.append(f"cut to the middle {height} rows")
    if (width, height) != engine:
        steps.append(f"padded with {'white' if fit.ground else 'black'} to {by(engine)}")
    how = ", as VGGT's public code does" if fit.scaled is not None and steps else ""
    return f"{by(size)} {kind} were {_joined(steps) or 'taken as they are'}{how}"


def _joined(steps: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(steps[:-1]), *steps[-1:]]))


def _height(sizes: list[Size], width: int) -> int:
    """Rows of the images that VGGT's public code makes of frames of these sizes: those of the highest."""
    return max(min(scaled_as_vggt(size, width)[1], width) for size in sizes)


def _is_published_height(sizes: list[Size], layout: Layout) -> bool:
    try:
        return _height(sizes, layout.W) == layout.H
    except UsageError:
        return False


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
