"""Weights from published checkpoints.

Every tensor is checked (there, of the right shape, finite) before the first is written.
"""

from __future__ import annotations

import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.load_report import groups_of
from page4d.checkpoints.sources import Sources
from page4d.checkpoints.weight_checks import check_finite, check_shapes, check_statistics
from page4d.checkpoints.weight_parts import Part, parts_of
from page4d.errors import UsageError
from page4d.files import sha256
from page4d.manifest import LoadReport, SourceFile
from page4d.model import Page4D, seed_parameter
from page4d.network.block import Block
from page4d.published import PAGE4D_EPS

Source = str | pathlib.Path | Checkpoint
"""A checkpoint's path, or the checkpoint, opened."""


def load(path: Source, **options: Any) -> Page4D:
    """The published model that a checkpoint holds, with its weights.

    Args:
        path: a checkpoint of Pi3, Pi3X, VGGT, PAGE-4D or Depth Anything 3; the `*.index.json` of one in several files;
            a folder with one; a repository on a hub, `owner/name` or `hf:owner/name@revision:file`; a `Checkpoint`.
        options: of `ModelConfig`, in place of what the checkpoint says, e.g. `mask=False` for PAGE-4D without its mask,
            `predictions=("camera", "depth")` for these heads alone, `published="da3-metric"` for a file of Depth
            Anything 3 that does not say itself that it is METRIC.

    Raises:
        UsageError: as `load_weights`; or an option that does not go with the model, or a head that the file lacks.
    """
    checkpoint = _opened(path)
    model = Page4D(checkpoint.config(**options), filled=False)
    load_weights(model, checkpoint=checkpoint)
    return model


def load_weights(
    model: Page4D,
    pi3: Source | None = None,
    page4d: Source | None = None,
    registers: str | None = None,
    time_sa: str | None = None,
    checkpoint: Source | None = None,
) -> LoadReport:
    """Give a model the weights of published checkpoints.

    Loads all of it or nothing, since everything is checked before a tensor is written. The eps of the norms and the
    sign of the mask head follow the weights; the structure of the mask head follows the checkpoint. A model with all
    heads of its kind keeps those that the checkpoint has; one with some of them needs these. A model with fewer layers
    takes what it needs; what no checkpoint has (lambdas, fusion, memory tokens) keeps its seed.

    Args:
        model: of the width of the checkpoints.
        pi3: Pi3's checkpoint (a file, an index, a folder or a `Checkpoint`, as for `load`): encoder, View-SA,
            Global-SA, and Time-SA where PAGE-4D gives none.
        page4d: PAGE-4D's or VGGT's: Time-SA, mask head; all of it for the published `page4d` and `vggt`.
        registers: special tokens: `split` (Pi3's five as they are), `truncate` (its first four as registers, a new
            camera token), `page4d`. Default: `split` where there is a Pi3 checkpoint.
        time_sa: Time-SA from `page4d` (default where given) or `pi3`.
        checkpoint: of any published model, in place of `pi3` and `page4d`; the only way for Pi3X and Depth Anything 3.

    Returns:
        What was loaded, adapted, new and unused; also `model.report`.

    Raises:
        UsageError: no checkpoint, a file that is damaged, hostile or another model's, a tensor that is missing, of
            another shape or not finite, or a choice that the files do not allow.
    """
    if checkpoint is not None:
        if pi3 is not None or page4d is not None:
            raise UsageError(
                "checkpoint is a model's only source, and another was given beside it",
                got="checkpoint and pi3 or page4d",
                allowed="checkpoint=FILE alone; pi3=FILE, page4d=FILE, or both",
            )
        sources = Sources.of(_opened(checkpoint))
    else:
        of_pi3 = None if pi3 is None else _opened(pi3)
        sources = Sources(of_pi3, None if page4d is None else _opened(page4d))
    sources = sources.for_model(model.config)
    sources.check(model.config)
    loading = _Load(model, sources, registers, time_sa)
    report = loading.checked()
    loading.write()
    model.report = report
    return report


def _opened(source: Source) -> Checkpoint:
    return source if isinstance(source, Checkpoint) else Checkpoint.open(source)


class _Load:
    """One load: the choices made, and each part of the network with its source.

    Attributes:
        parts: every parameter of the model with the checkpoints' structure, in exactly one of them.
    """

    def __init__(self, model: Page4D, sources: Sources, registers: str | None, time_sa: str | None) -> None:
        self.model, self.sources = model, sources
        from_pi3, from_page4d = ("split", "truncate") if sources.pi3 else (), ("page4d",) if sources.page4d else ()
        self.registers = _chosen("registers", registers, (*from_pi3, *from_page4d))
        self.time_sa = _chosen("time_sa", time_sa, (*from_page4d, *(("pi3",) if sources.pi3 else ())))
        self.config = sources.adapted(model.config)
        # the model itself stays as it was until everything is checked
        self.planned = model if self.config == model.config else Page4D(self.config, filled=False)
        self.parts = list(parts_of(self.planned, sources, self.registers, self.time_sa))

    def checked(self) -> LoadReport:
        """Check every tensor, before one is written; what will be loaded.

        Raises:
            UsageError: a tensor is missing, of another shape or not finite.
        """
        for part in self.parts:
            check_shapes(self.planned, part)
        checkpoints = self.sources.all
        with ThreadPoolExecutor(max_workers=len(checkpoints)) as pool:
            # files are hashed while they are checked, which reads the same pages
            files = [pool.submit(_source_files, checkpoint) for checkpoint in checkpoints]
            for checkpoint in checkpoints:
                check_statistics(checkpoint)
            for part in self.parts:
                check_finite(part)
        return LoadReport(
            files=tuple(file for future in files for file in future.result()),
            groups=groups_of(self.parts, checkpoints),
            notes=self.sources.notes(self.config),
        )

    def write(self) -> None:
        """Write every tensor."""
        model = self.model
        mask_head_is_new = model.report is None
        model.weights, model.complete = "incomplete: loading was interrupted", False
        if self.planned is not model:
            model.restructure(self.config)
        for part in self.parts:
            _write(model, part, self.registers)
        self._follow()
        checkpoints = self.sources.all
        model.weights = " and ".join(f"{checkpoint.described} ({checkpoint.origin})" for checkpoint in checkpoints)
        model.licence = "; and ".join(dict.fromkeys(checkpoint.licence for checkpoint in checkpoints))
        if any(part.name == "mask head" and part.source is None for part in self.parts):
            seeded = f"; mask head seeded (seed {model.seed})"
            model.weights += seeded if mask_head_is_new else "; mask head as it was"
        model.complete = True

    def _follow(self) -> None:
        """Set what comes with weights beside their values: eps of the norms, and the sign of the mask head."""
        for layer in self.model.layers:
            for kind in ("view_sa", "time_sa", "global_sa"):
                attention = getattr(layer, kind)
                if attention is not None:
                    is_page4d = kind == "time_sa" and self.time_sa == "page4d"
                    assert isinstance(attention.block, Block)
                    attention.block.set_eps(*(PAGE4D_EPS if is_page4d else self.config.eps))
        page4d = self.sources.page4d
        if self.model.mask_head is not None and page4d is not None and page4d.mask_head is not None:
            self.model.mask_head.sign = -1.0


def _chosen(name: str, choice: str | None, allowed: tuple[str, ...]) -> str:
    if choice is not None and choice not in allowed:
        raise UsageError(
            f"{name} cannot be taken from the checkpoints that were given",
            got=choice,
            allowed=", ".join(allowed) or "none: the model has them as published",
        )
    return choice or next(iter(allowed), "")


# ---- writing


def _write(model: Page4D, part: Part, registers: str) -> None:
    for name in part.new:
        if model.get_parameter(name).is_meta:
            _put(model, name, torch.empty(model.get_parameter(name).shape))
            seed_parameter(name, model.get_parameter(name).data, model.seed)
    if part.source is None:
        return
    if part.joined:
        tensors = [tensor.to(torch.float32, copy=True) for _, tensor in part.source.read(part.joined)]
        _put(model, "special_tokens", _special(tensors, registers, model))
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
    if tensors[0].dim() == 3:  # Depth Anything 3: [1,2,C]
        return tensors[0].transpose(0, 1)
    five = tensors[0][0]  # [1,5,C]
    if registers == "truncate":
        camera = torch.empty(1, 1, five.shape[-1])
        seed_parameter("special_tokens.camera", camera, model.seed)
        five = torch.cat((camera, five[:, :4]), dim=1)
    return five.expand(2, -1, -1)


def _source_files(checkpoint: Checkpoint) -> list[SourceFile]:
    """Every file that was read; an index holds no tensors itself."""
    tensors = {file.path: len(file.tensors) for file in checkpoint.files}
    source = None if checkpoint.downloaded is None else checkpoint.downloaded.source
    return [
        SourceFile(
            name=path.name,
            model=checkpoint.described,
            sha256=sha256(path),
            tensors=tensors.get(path, 0),
            repository="" if source is None else source.repository,
            revision="" if source is None else source.revision,
        )
        for path in checkpoint.paths
    ]
