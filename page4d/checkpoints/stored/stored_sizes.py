"""The published sizes of a model, and which of them a file is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from page4d.checkpoints.stored.stored_heads import missing_heads
from page4d.config import PRESETS, ModelConfig, Published
from page4d.published import TRAITS


def preset_of(published: Published, width: int, encoder_depth: int, depth: int) -> str:
    """The preset of a published model: of several sizes the one that these are, else one of this width, else the
    largest."""
    presets = {name: _sizes(values) for name, values in PRESETS.items() if values.get("published") == published}
    sizes = {"width": width, "encoder_depth": encoder_depth, "depth": depth}
    same = [name for name, preset in presets.items() if preset == sizes]
    same += [name for name, preset in presets.items() if preset["width"] == width]
    return (*same, *reversed(presets))[0]


def title_of(published: Published, width: int, encoder_depth: int, depth: int) -> str:
    """The model's name, with that of its size where it is one of several: `Depth Anything 3 SMALL`."""
    title, preset = TRAITS[published].title, preset_of(published, width, encoder_depth, depth)
    if published is not Published.DA3 or _sizes(PRESETS[preset])["width"] != width:
        return title
    return f"{title} {preset.split('-')[1].upper()}"


def shortfalls(
    published: Published, width: int, depth: int, encoder_depth: int, names: Collection[str]
) -> Iterator[str]:
    """What a complete file lacks of the published model, as notes: no errors, since smaller models exist."""
    of_all = "the file may be a part of it"
    sizes = [_sizes(values) for values in PRESETS.values() if values.get("published") == published]
    known = next((size for size in sizes if size["width"] == width), None)
    if known is not None:
        if depth < known["depth"]:
            yield f"{depth} layers, and the published {published} of this width has {known['depth']}: {of_all}"
        if encoder_depth < known["encoder_depth"]:
            yield (
                f"{encoder_depth} encoder blocks,"
                f" and the published {published} of this width has {known['encoder_depth']}: {of_all}"
            )
    yield from missing_heads(published, names)


def _sizes(preset: dict[str, Any]) -> dict[str, int]:
    return {name: preset.get(name, getattr(ModelConfig, name)) for name in ("width", "encoder_depth", "depth")}
