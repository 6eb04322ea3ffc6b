"""Which tensor of which checkpoint goes into which parameter. Table of sources: docs/checkpoints.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.sources import Sources
from page4d.checkpoints.stored.stored_model import DA3_BACKBONE, DA3_TOKEN, MASK_HEAD
from page4d.config import Head, Published
from page4d.model import Page4D

_PI3_HEADS = {
    "points.decoder.": "point_decoder.",
    "points.head.": "point_head.",
    "confidence.decoder.": "conf_decoder.",
    "confidence.head.": "conf_head.",
    "camera.decoder.": "camera_decoder.",
    "camera.head.": "camera_head.",
}
_METRIC_HEAD = {"metric.token": "metric_token", "metric.decoder.": "metric_decoder.", "metric.head.": "metric_head."}
_VGGT_HEADS = {Head.CAMERA: "camera_head.", Head.DEPTH: "depth_head.", Head.POINTS: "point_head."}
_DA3_DEPTH = {"depth.": "head.", "depth.final_norm.": f"{DA3_BACKBONE}norm."}  # the longer prefix comes later, and wins
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


def parts_of(model: Page4D, sources: Sources, registers: str, time_sa: str) -> Iterator[Part]:
    """Every parameter of the model, in exactly one part."""
    names = [name for name, _ in model.named_parameters()]
    if model.config.published is Published.PI3X and sources.single is not None:
        yield from _pi3_parts(model, sources.single, names)
    elif sources.single is not None:
        yield from _da3_parts(model, sources.single, names)
    else:
        yield from _shared_parts(model, sources.pi3, sources.page4d, names, registers, time_sa)


def _shared_parts(
    model: Page4D,
    pi3: Checkpoint | None,
    page4d: Checkpoint | None,
    names: list[str],
    registers: str,
    time_sa: str,
) -> Iterator[Part]:
    """Of networks whose weights are Pi3's, VGGT's or PAGE-4D's."""
    config = model.config
    if config.published is Published.PI3:
        assert pi3 is not None
        yield from _pi3_parts(model, pi3, names, registers)
        return
    base = page4d if config.built_on_vggt else pi3
    assert base is not None
    encoder = "aggregator.patch_embed." if config.built_on_vggt else "encoder."
    yield _renamed("encoder", base, f"{encoder}*", names, {"encoder.": encoder})
    yield _special_tokens(page4d if registers == "page4d" else pi3, registers)
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
    for head, prefix in _VGGT_HEADS.items() if config.built_on_vggt else ():
        if head in config.predictions:
            yield _renamed(f"{head} head", page4d, f"{prefix}*", names, {f"{head}.": prefix})


def _pi3_parts(model: Page4D, source: Checkpoint, names: list[str], registers: str = "split") -> Iterator[Part]:
    """Of Pi3 and Pi3X as published."""
    yield _renamed("encoder", source, "encoder.*", names, {"encoder.": "encoder."})
    yield _special_tokens(source, registers)
    yield _blocks("view_sa", source, names, "decoder.", step=2, first=1)
    yield _blocks("time_sa", source, names, "decoder.", step=2)
    if model.config.predictions:
        yield _renamed("heads", source, "{point,conf,camera}_{decoder,head}.*", names, _PI3_HEADS)
    if Head.METRIC in model.config.predictions:
        yield _renamed("metric head", source, "metric_{token,decoder,head}.*", names, _METRIC_HEAD)


def _da3_parts(model: Page4D, source: Checkpoint, names: list[str]) -> Iterator[Part]:
    """Of Depth Anything 3: layer i has the blocks 2i and 2i+1 after the encoder's."""
    config, blocks, first = model.config, f"{DA3_BACKBONE}blocks.", source.encoder_depth
    yield _renamed("encoder", source, f"{DA3_BACKBONE}*", names, {"encoder.": DA3_BACKBONE})
    if config.known_cameras:
        yield _renamed("camera encoder", source, "cam_enc.*", names, {"camera_encoder.": "cam_enc."})
    if config.has_special_tokens:
        yield Part("special tokens", source, DA3_TOKEN, joined=(DA3_TOKEN,))
    if config.depth:
        yield _blocks("time_sa", source, names, blocks, step=2, first=first)
        yield _blocks("view_sa", source, names, blocks, step=2, first=first + 1)
    if Head.CAMERA in config.predictions:
        yield _renamed("camera head", source, "cam_dec.*", names, {"camera.": "cam_dec."})
    if Head.DEPTH in config.predictions:
        yield _renamed("depth head", source, f"head.*, {DA3_BACKBONE}norm.*", names, _DA3_DEPTH)


def _special_tokens(source: Checkpoint | None, registers: str) -> Part:
    if registers == "page4d":
        joined = ("aggregator.camera_token", "aggregator.register_token")
        return Part("special tokens", source, ", ".join(joined), joined=joined)
    name = "special tokens, truncate" if registers == "truncate" else "special tokens"
    return Part(name, source, "register_token", joined=("register_token",))


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
