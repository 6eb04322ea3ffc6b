"""Weights from published checkpoints: which tensor goes where, checked whole before the first is written.

A plan lists, per part of the network, the parameters and their tensors' names in the source; `load_weights` checks that
all are there with the right shapes and finite, then writes them. Table of sources: docs/checkpoints.md.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.checkpoint_match import adapted, check_kinds, check_model
from page4d.checkpoints.completeness import MASK_HEAD
from page4d.config import Published
from page4d.errors import UsageError
from page4d.files import sha256
from page4d.manifest import Group, LoadReport, SourceFile
from page4d.model import Page4D, seed_parameter
from page4d.network.block import Block

Registers = Literal["split", "truncate", "page4d"]
TimeSource = Literal["page4d", "pi3"]
StrPath = str | pathlib.Path

PI3_EPS, PAGE4D_EPS = (1e-6, 1e-5), (1e-5, 1e-5)  # of a block's norms, and of those over q and k
_PI3_HEADS = {
    "points.decoder.": "point_decoder.",
    "points.head.": "point_head.",
    "confidence.decoder.": "conf_decoder.",
    "confidence.head.": "conf_head.",
    "camera.decoder.": "camera_decoder.",
    "camera.head.": "camera_head.",
}
_SPECIAL = "special_tokens"
_PAGE4D_LAYERS = 24


@dataclass
class _Part:
    """One part of the network: where its parameters come from."""

    name: str
    source: Checkpoint | None
    keys: str
    takes: dict[str, str] = field(default_factory=dict)  # parameter -> key
    joined: tuple[str, ...] = ()  # keys that are cut or joined into one parameter
    new: list[str] = field(default_factory=list)


def load(path: StrPath, **options: Any) -> Page4D:
    """The published model that a checkpoint holds, with its weights.

    Args:
        path: Pi3's `model.safetensors`, or a checkpoint of VGGT or PAGE-4D; the `*.index.json` of one in several files;
            a folder with one.
        options: of `ModelConfig`, in place of what the checkpoint says, e.g. `mask=False` for PAGE-4D without its mask.

    Raises:
        UsageError: as `load_weights`; or an option that does not go with the model.
    """
    checkpoint = Checkpoint.open(path)
    model = Page4D(checkpoint.config(**options), filled=False)
    _load(model, *_by_model(checkpoint), None, None)
    return model


def load_weights(
    model: Page4D,
    pi3: StrPath | None = None,
    page4d: StrPath | None = None,
    registers: Registers | None = None,
    time_sa: TimeSource | None = None,
) -> LoadReport:
    """Give a model the weights of published checkpoints. All of it or nothing: what is wrong is found before a tensor
    is written.

    The eps of the norms and the sign of the mask head follow the weights; the structure of the mask head follows the
    checkpoint. A model with fewer layers takes what it needs; what no checkpoint has (lambdas, fusion, memory tokens)
    keeps its seed.

    Args:
        model: of the width of the checkpoints.
        pi3: Pi3's checkpoint (a file, an index or a folder, as for `load`): encoder, View-SA, Global-SA, and Time-SA
            where PAGE-4D gives none.
        page4d: PAGE-4D's or VGGT's: Time-SA, mask head; all of it for the published `page4d` and `vggt`.
        registers: special tokens: `split` (Pi3's five as they are), `truncate` (its first four as registers, a new
            camera token), `page4d`. Default: `split` where there is a Pi3 checkpoint.
        time_sa: Time-SA from `page4d` (default where given) or `pi3`.

    Returns:
        What was loaded, adapted, new and unused; also `model.report`.

    Raises:
        UsageError: no checkpoint, a file that is damaged, hostile or another model's, a tensor that is missing, of
            another shape or not finite, or a choice that the files do not allow.
    """
    first, second = (None if path is None else Checkpoint.open(path) for path in (pi3, page4d))
    return _load(model, first, second, registers, time_sa)


def _by_model(checkpoint: Checkpoint) -> tuple[Checkpoint | None, Checkpoint | None]:
    return (checkpoint, None) if checkpoint.published is Published.PI3 else (None, checkpoint)


def _load(
    model: Page4D, pi3: Checkpoint | None, page4d: Checkpoint | None, registers: str | None, time_sa: str | None
) -> LoadReport:
    check_kinds(pi3, page4d)
    check_model(model.config, pi3, page4d)
    registers = _chosen("registers", registers, ("split", "truncate") if pi3 else (), ("page4d",) if page4d else ())
    time_sa = _chosen("time_sa", time_sa, ("page4d",) if page4d else (), ("pi3",) if pi3 else ())
    config = adapted(model.config, pi3, page4d)
    planned = (
        model if config == model.config else Page4D(config, filled=False)
    )  # the model itself is as it was until all is checked
    parts = list(_plan(planned, pi3, page4d, registers, time_sa))
    for part in parts:
        _check_shapes(planned, part)
    checkpoints = [checkpoint for checkpoint in (pi3, page4d) if checkpoint is not None]
    with ThreadPoolExecutor(max_workers=len(checkpoints)) as pool:
        hashed = [
            pool.submit(_hashed, checkpoint) for checkpoint in checkpoints
        ]  # beside the scan, which reads the same pages
        for part in parts:
            _check_finite(part)
    first = model.report is None
    model.weights, model.complete = "incomplete: loading was interrupted", False
    if planned is not model:
        model.restructure(config)
    for part in parts:
        _write(model, part, registers)
    _follow(model, pi3, page4d, time_sa)
    model.report = LoadReport(
        tuple(source for each in hashed for source in each.result()),
        (*(_group(part) for part in parts), *(row for checkpoint in checkpoints for row in _unused(checkpoint, parts))),
        tuple(note for checkpoint in checkpoints for note in checkpoint.notes),
    )
    model.weights = " and ".join(f"{checkpoint.described} ({checkpoint.name})" for checkpoint in checkpoints)
    if any(part.name == "mask head" and part.source is None for part in parts):
        model.weights += f"; mask head seeded (seed {model.seed})" if first else "; mask head as it was"
    model.complete = True
    return model.report


# ---- the choices


def _chosen(name: str, given: str | None, first: tuple[str, ...], second: tuple[str, ...]) -> str:
    allowed = (*first, *second)
    if given is not None and given not in allowed:
        raise UsageError(
            f"{name} cannot be taken from the checkpoints that were given", got=given, allowed=", ".join(allowed)
        )
    return given or allowed[0]


# ---- the plan


def _plan(
    model: Page4D, pi3: Checkpoint | None, page4d: Checkpoint | None, registers: str, time_sa: str
) -> Iterator[_Part]:
    """Every parameter of the model, in exactly one part."""
    config = model.config
    names = [name for name, _ in model.named_parameters()]
    base = page4d if config.published in (Published.VGGT, Published.PAGE4D) else pi3
    assert base is not None
    encoder = "encoder." if base is pi3 else "aggregator.patch_embed."
    yield _renamed("encoder", base, f"{encoder}*", names, {"encoder.": encoder})
    if registers == "page4d":
        special = _Part("special tokens", page4d, "aggregator.camera_token, aggregator.register_token")
        special.joined = ("aggregator.camera_token", "aggregator.register_token")
    else:
        special = _Part(
            f"special tokens, {registers}" if registers == "truncate" else "special tokens",
            pi3,
            "register_token",
            joined=("register_token",),
        )
    yield special

    layers = range(config.depth)
    if base is pi3:
        odd = {i: f"decoder.{2 * i + 1}." for i in layers}
        yield _blocks("view_sa", pi3, "decoder.{2i+1}.*", names, odd)
        if time_sa == "pi3":
            yield _blocks("time_sa", pi3, "decoder.{2i}.*", names, {i: f"decoder.{2 * i}." for i in layers})
        else:
            assert page4d is not None
            first = max(_PAGE4D_LAYERS - config.depth, 0)  # the last ones: they have seen the most
            keys = f"aggregator.global_blocks.{{i+{first}}}.*" if first else "aggregator.global_blocks.{i}.*"
            yield _blocks("time_sa", page4d, keys, names, {i: f"aggregator.global_blocks.{first + i}." for i in layers})
        if config.global_layers:
            yield _blocks("global_sa", pi3, "decoder.{2i+1}.*", names, odd)
    else:
        yield _blocks(
            "view_sa",
            page4d,
            "aggregator.frame_blocks.{i}.*",
            names,
            {i: f"aggregator.frame_blocks.{i}." for i in layers},
        )
        yield _blocks(
            "time_sa",
            page4d,
            "aggregator.global_blocks.{i}.*",
            names,
            {i: f"aggregator.global_blocks.{i}." for i in layers},
        )
    if config.has_mask:
        source = page4d if page4d is not None and page4d.mask_head is not None else None
        yield _mask_head(source, names)
    if config.has_memory:
        yield _Part("memory tokens", None, "", new=["memory_tokens"])
    if config.predictions:
        yield _renamed("heads", pi3, "{point,conf,camera}_{decoder,head}.*", names, _PI3_HEADS)


def _renamed(name: str, source: Checkpoint | None, keys: str, names: Iterable[str], prefixes: dict[str, str]) -> _Part:
    """Parameters under some prefixes, under other prefixes in the source."""
    takes = {
        parameter: theirs + parameter[len(ours) :]
        for parameter in names
        for ours, theirs in prefixes.items()
        if parameter.startswith(ours)
    }
    return _Part(name, source, keys, takes)


def _blocks(kind: str, source: Checkpoint | None, keys: str, names: Iterable[str], prefixes: dict[int, str]) -> _Part:
    """The blocks of one kind in all layers; their lambdas are new."""
    part = _Part(kind, source, keys)
    for name in names:
        if found := re.fullmatch(rf"layers\.(\d+)\.{kind}\.(block\.(.*)|lambda_.*)", name):
            if found.group(3) is None:
                part.new.append(name)
            else:
                part.takes[name] = prefixes[int(found.group(1))] + found.group(3)
    return part


def _mask_head(source: Checkpoint | None, names: Iterable[str]) -> _Part:
    part = _Part("mask head", source, f"{MASK_HEAD}*" if source else "")
    for name in names:
        if name.startswith("mask_head."):
            if source is not None and name.startswith(
                ("mask_head.head0.", "mask_head.alpha_logit", "mask_head.tau_logit")
            ):
                part.takes[name] = MASK_HEAD + name.removeprefix("mask_head.")
            else:
                part.new.append(name)
    return part


# ---- checks, before anything is written


def _check_shapes(model: Page4D, part: _Part) -> None:
    if part.source is None:
        return
    width = model.config.width
    expected = {key: tuple(model.get_parameter(name).shape) for name, key in part.takes.items()}
    special = {
        "register_token": (1, 1, 5, width),
        "aggregator.camera_token": (1, 2, 1, width),
        "aggregator.register_token": (1, 2, 4, width),
    }
    expected |= {key: special[key] for key in part.joined}
    for key, shape in expected.items():
        found = part.source.shapes.get(key)
        if found is None:
            holds = f"{part.source.depth} layers and {part.source.encoder_depth} encoder blocks"
            raise UsageError(
                f"{part.source.name} lacks {key}",
                got=f"no such tensor; the file holds {holds}",
                allowed=f"{key} of shape {list(shape)}",
                hint=f"another file, or a model that needs no more than {holds}",
            )
        if found != shape:
            raise UsageError(
                f"{part.source.name}: {key} has another shape than the model's", got=list(found), allowed=list(shape)
            )


def _check_finite(part: _Part) -> None:
    if part.source is None:
        return
    for key, tensor in part.source.read([*part.joined, *dict.fromkeys(part.takes.values())]):
        number = (
            tensor.float() if tensor.dtype == torch.float64 else tensor
        )  # one that is too large for float32 would become infinite
        broken = tensor.numel() - int(torch.isfinite(number).sum())
        if broken:
            raise UsageError(
                f"{part.source.name}: {key} holds numbers that are not finite",
                got=f"{broken} of {tensor.numel()} are NaN or infinite, or too large for float32",
                allowed="finite numbers",
                hint="download it again; if it is the same, training diverged",
            )


# ---- writing


def _write(model: Page4D, part: _Part, registers: str) -> None:
    for name in part.new:
        if model.get_parameter(name).is_meta:
            _put(model, name, torch.empty(model.get_parameter(name).shape))
            seed_parameter(name, model.get_parameter(name).data, model.seed)
    if part.source is None:
        return
    if part.joined:
        tensors = [tensor.to(torch.float32, copy=True) for _, tensor in part.source.read(part.joined)]
        _put(model, _SPECIAL, _special(tensors, registers, model))
    targets: dict[str, list[str]] = {}
    for name, key in part.takes.items():
        targets.setdefault(key, []).append(name)
    for key, tensor in part.source.read(targets):
        for name in targets[key]:
            _put(model, name, tensor)


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Copy a tensor into a parameter; one without memory gets its own, float32."""
    parameter = model.get_parameter(name)
    if not parameter.is_meta:
        parameter.data.copy_(tensor)
        return
    owner, _, leaf = name.rpartition(".")
    fresh = torch.empty(tensor.shape, dtype=torch.float32)
    fresh.copy_(tensor)
    setattr(model.get_submodule(owner), leaf, nn.Parameter(fresh, requires_grad=False))


def _special(tensors: list[Tensor], registers: str, model: Page4D) -> Tensor:
    """The tokens `[2,5,C]` of the first image and of the others, from the checkpoint's."""
    if registers == "page4d":
        camera, register = tensors  # [1,2,1,C], [1,2,4,C]
        return torch.cat((camera[0], register[0]), dim=1)
    five = tensors[0][0]  # [1,5,C]
    if registers == "truncate":
        camera = torch.empty(1, 1, five.shape[-1])
        seed_parameter("special_tokens.camera", camera, model.seed)
        five = torch.cat((camera, five[:, :4]), dim=1)
    return five.expand(2, -1, -1)


def _follow(model: Page4D, pi3: Checkpoint | None, page4d: Checkpoint | None, time_sa: str) -> None:
    """What comes with weights beside their numbers: eps, and the sign of the mask head."""
    own = model.config.published in (Published.VGGT, Published.PAGE4D)
    for layer in model.layers:
        for kind in ("view_sa", "time_sa", "global_sa"):
            part = getattr(layer, kind)
            if part is not None:
                assert isinstance(part.block, Block)
                part.block.set_eps(*(PAGE4D_EPS if own or (kind == "time_sa" and time_sa == "page4d") else PI3_EPS))
    if model.mask_head is not None and page4d is not None and page4d.mask_head is not None:
        model.mask_head.sign = -1.0


# ---- the report


def _group(part: _Part) -> Group:
    truncated = "truncate" in part.name  # its camera token is new
    return Group(
        part.name,
        part.source.name if part.source is not None else "",
        part.keys,
        loaded=len(part.takes),
        adapted=len(part.joined),
        new=len(part.new) + truncated,
    )


def _hashed(checkpoint: Checkpoint) -> list[SourceFile]:
    """Every file that was read; an index holds no tensors itself."""
    tensors = {file.path: len(file.tensors) for file in checkpoint.files}
    return [
        SourceFile(path.name, checkpoint.described, sha256(path), tensors.get(path, 0)) for path in checkpoint.paths
    ]


def _unused(file: Checkpoint, parts: list[_Part]) -> Iterator[Group]:
    """What of a file nothing takes, by the first words of the names."""
    used = {key for part in parts if part.source is file for key in (*part.takes.values(), *part.joined)}
    counts: dict[str, int] = {}
    for key in file.shapes:
        if key not in used:
            words = key.split(".")
            prefix = ".".join(words[: 2 if words[0] == "aggregator" else 1])
            counts[prefix] = counts.get(prefix, 0) + 1
    for prefix, count in counts.items():
        yield Group("unused", file.name, prefix if prefix in file.shapes else f"{prefix}.*", unused=count)
