"""Which tensor of which checkpoint goes into which parameter. Table of sources: docs/checkpoints.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.completeness import MASK_HEAD
from page4d.config import Head
from page4d.model import Page4D

_PI3_HEADS = {
    "points.decoder.": "point_decoder.",
    "points.head.": "point_head.",
    "confidence.decoder.": "conf_decoder.",
    "confidence.head.": "conf_head.",
    "camera.decoder.": "camera_decoder.",
    "camera.head.": "camera_head.",
}
_VGGT_HEADS = {Head.CAMERA: "camera_head.", Head.DEPTH: "depth_head.", Head.POINTS: "point_head."}
_PAGE4D_LAYERS = 24


@dataclass
class Part:
    """One part of the network, and the tensors of its parameters.

    Attributes:
        source: the checkpoint; None where none has the part.
        keys: which of its tensors, as a pattern.
        takes: the tensor that each parameter is.
        joined: tensors that are cut or joined into the special tokens.
        new: parameters that the checkpoint does not have.
    """

    name: str
    source: Checkpoint | None
    keys: str
    takes: dict[str, str] = field(default_factory=dict)
    joined: tuple[str, ...] = ()
    new: list[str] = field(default_factory=list)


def parts_of(
    model: Page4D, pi3: Checkpoint | None, page4d: Checkpoint | None, registers: str, time_sa: str
) -> Iterator[Part]:
    """Every parameter of the model, in exactly one part."""
    config = model.config
    names = [name for name, _ in model.named_parameters()]
    base = page4d if config.built_on_vggt else pi3
    assert base is not None
    encoder = "aggregator.patch_embed." if config.built_on_vggt else "encoder."
    yield _renamed("encoder", base, f"{encoder}*", names, {"encoder.": encoder})
    if registers == "page4d":
        joined = ("aggregator.camera_token", "aggregator.register_token")
        yield Part("special tokens", page4d, ", ".join(joined), joined=joined)
    else:
        name = "special tokens, truncate" if registers == "truncate" else "special tokens"
        yield Part(name, pi3, "register_token", joined=("register_token",))

    frame, everywhere, pair = "aggregator.frame_blocks.", "aggregator.global_blocks.", "decoder."
    if config.built_on_vggt:
        yield _blocks("view_sa", page4d, names, frame)
        yield _blocks("time_sa", page4d, names, everywhere)
    else:
        yield _blocks("view_sa", pi3, names, pair, step=2, first=1)
        if time_sa == "pi3":
            yield _blocks("time_sa", pi3, names, pair, step=2)
        else:
            # the last ones: they have seen the most
            yield _blocks("time_sa", page4d, names, everywhere, first=max(_PAGE4D_LAYERS - config.depth, 0))
        if config.global_layers:
            yield _blocks("global_sa", pi3, names, pair, step=2, first=1)
    if config.has_mask:
        yield _mask_head(page4d if page4d is not None and page4d.mask_head is not None else None, names)
    if config.has_memory:
        yield Part("memory tokens", None, "", new=["memory_tokens"])
    if config.built_on_vggt:
        for head, prefix in _VGGT_HEADS.items():
            if head in config.predictions:
                yield _renamed(f"{head} head", page4d, f"{prefix}*", names, {f"{head}.": prefix})
    elif config.predictions:
        yield _renamed("heads", pi3, "{point,conf,camera}_{decoder,head}.*", names, _PI3_HEADS)


def _renamed(name: str, source: Checkpoint | None, keys: str, names: Iterable[str], prefixes: dict[str, str]) -> Part:
    """Parameters under some prefixes, which are other prefixes in the source."""
    part = Part(name, source, keys)
    for prefix, source_prefix in prefixes.items():
        parameters = (parameter for parameter in names if parameter.startswith(prefix))
        part.takes |= {parameter: source_prefix + parameter.removeprefix(prefix) for parameter in parameters}
    return part


def _blocks(
    kind: str, source: Checkpoint | None, names: Iterable[str], prefix: str, step: int = 1, first: int = 0
) -> Part:
    """The blocks of one kind: layer i has the source's block `step * i + first`. Their lambdas are new."""
    index = ("i" if step == 1 else f"{step}i") + (f"+{first}" if first else "")
    part = Part(kind, source, f"{prefix}{{{index}}}.*")
    for name in names:
        if match := re.fullmatch(rf"layers\.(?P<layer>\d+)\.{kind}\.(block\.(?P<leaf>.*)|lambda_.*)", name):
            if match["leaf"] is None:
                part.new.append(name)
            else:
                part.takes[name] = f"{prefix}{step * int(match['layer']) + first}.{match['leaf']}"
    return part


def _mask_head(source: Checkpoint | None, names: Iterable[str]) -> Part:
    part = Part("mask head", source, f"{MASK_HEAD}*" if source else "")
    for name in names:
        leaf = name.removeprefix("mask_head.")
        if leaf == name:
            continue
        if source is not None and leaf.startswith(("head0.", "alpha_logit", "tau_logit")):
            part.takes[name] = MASK_HEAD + leaf
        else:
            part.new.append(name)
    return part
