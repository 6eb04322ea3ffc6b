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
from page4d.checkpoints.checkpoint_match import adapted, check_kinds, check_model, unused_heads
from page4d.checkpoints.load_report import groups_of
from page4d.checkpoints.weight_parts import Part, parts_of
from page4d.config import PAGE4D_EPS, PI3_EPS, Published
from page4d.errors import UsageError
from page4d.files import sha256
from page4d.manifest import LoadReport, SourceFile
from page4d.model import Page4D, seed_parameter
from page4d.network.block import Block

Source = str | pathlib.Path | Checkpoint
"""A checkpoint's path, or the checkpoint, opened."""


def load(path: Source, **options: Any) -> Page4D:
    """The published model that a checkpoint holds, with its weights.

    Args:
        path: Pi3's `model.safetensors`, or a checkpoint of VGGT or PAGE-4D; the `*.index.json` of one in several files;
            a folder with one; a `Checkpoint`.
        options: of `ModelConfig`, in place of what the checkpoint says, e.g. `mask=False` for PAGE-4D without its mask,
            `predictions=("camera", "depth")` for these heads alone.

    Raises:
        UsageError: as `load_weights`; or an option that does not go with the model, or a head that the file lacks.
    """
    checkpoint = _opened(path)
    model = Page4D(checkpoint.config(**options), filled=False)
    is_pi3 = checkpoint.published is Published.PI3
    load_weights(model, checkpoint if is_pi3 else None, None if is_pi3 else checkpoint)
    return model


def load_weights(
    model: Page4D,
    pi3: Source | None = None,
    page4d: Source | None = None,
    registers: str | None = None,
    time_sa: str | None = None,
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

    Returns:
        What was loaded, adapted, new and unused; also `model.report`.

    Raises:
        UsageError: no checkpoint, a file that is damaged, hostile or another model's, a tensor that is missing, of
            another shape or not finite, or a choice that the files do not allow.
    """
    of_pi3 = None if pi3 is None else _opened(pi3)
    of_page4d = None if page4d is None else _opened(page4d)
    check_kinds(of_pi3, of_page4d)
    check_model(model.config, of_pi3, of_page4d)
    loading = _Load(model, of_pi3, of_page4d, registers, time_sa)
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

    def __init__(
        self,
        model: Page4D,
        pi3: Checkpoint | None,
        page4d: Checkpoint | None,
        registers: str | None,
        time_sa: str | None,
    ) -> None:
        self.model, self.pi3, self.page4d = model, pi3, page4d
        from_pi3, from_page4d = ("split", "truncate") if pi3 else (), ("page4d",) if page4d else ()
        self.registers = _chosen("registers", registers, (*from_pi3, *from_page4d))
        self.time_sa = _chosen("time_sa", time_sa, (*from_page4d, *(("pi3",) if pi3 else ())))
        self.config = adapted(model.config, pi3, page4d)
        # the model itself stays as it was until everything is checked
        self.planned = model if self.config == model.config else Page4D(self.config, filled=False)
        self.parts = list(parts_of(self.planned, pi3, page4d, self.registers, self.time_sa))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [checkpoint for checkpoint in (self.pi3, self.page4d) if checkpoint is not None]

    def checked(self) -> LoadReport:
        """Check every tensor, before one is written; what will be loaded.

        Raises:
            UsageError: a tensor is missing, of another shape or not finite.
        """
        for part in self.parts:
            _check_shapes(self.planned, part)
        with ThreadPoolExecutor(max_workers=len(self.checkpoints)) as pool:
            # files are hashed while they are checked, which reads the same pages
            files = [pool.submit(_source_files, checkpoint) for checkpoint in self.checkpoints]
            for part in self.parts:
                _check_finite(part)
        notes = [note for checkpoint in self.checkpoints for note in checkpoint.notes]
        return LoadReport(
            files=tuple(file for future in files for file in future.result()),
            groups=groups_of(self.parts, self.checkpoints),
            notes=(*notes, *unused_heads(self.config, self.pi3, self.page4d)),
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
        model.weights = " and ".join(f"{checkpoint.described} ({checkpoint.name})" for checkpoint in self.checkpoints)
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
                    is_page4d = self.config.built_on_vggt or (kind == "time_sa" and self.time_sa == "page4d")
                    assert isinstance(attention.block, Block)
                    attention.block.set_eps(*(PAGE4D_EPS if is_page4d else PI3_EPS))
        if self.model.mask_head is not None and self.page4d is not None and self.page4d.mask_head is not None:
            self.model.mask_head.sign = -1.0


def _chosen(name: str, choice: str | None, allowed: tuple[str, ...]) -> str:
    if choice is not None and choice not in allowed:
        raise UsageError(
            f"{name} cannot be taken from the checkpoints that were given", got=choice, allowed=", ".join(allowed)
        )
    return choice or allowed[0]


# ---- checks, before anything is written


def _check_shapes(model: Page4D, part: Part) -> None:
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
        stored = part.source.shapes.get(key)
        if stored is None:
            holds = f"{part.source.depth} layers and {part.source.encoder_depth} encoder blocks"
            raise UsageError(
                f"{part.source.name} lacks {key}",
                got=f"no such tensor; the file holds {holds}",
                allowed=f"{key} of shape {list(shape)}",
                hint=f"another file, or a model that needs no more than {holds}",
            )
        if stored != shape:
            raise UsageError(
                f"{part.source.name}: {key} has another shape than the model's", got=list(stored), allowed=list(shape)
            )


def _check_finite(part: Part) -> None:
    if part.source is None:
        return
    for key, tensor in part.source.read([*part.joined, *dict.fromkeys(part.takes.values())]):
        # a float64 that is too large for float32 would become infinite
        values = tensor.float() if tensor.dtype == torch.float64 else tensor
        broken = tensor.numel() - int(torch.isfinite(values).sum())
        if broken:
            raise UsageError(
                f"{part.source.name}: {key} holds numbers that are not finite",
                got=f"{broken} of {tensor.numel()} are NaN or infinite, or too large for float32",
                allowed="finite numbers",
                hint="download it again; if it is the same, training diverged",
            )


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
    five = tensors[0][0]  # [1,5,C]
    if registers == "truncate":
        camera = torch.empty(1, 1, five.shape[-1])
        seed_parameter("special_tokens.camera", camera, model.seed)
        five = torch.cat((camera, five[:, :4]), dim=1)
    return five.expand(2, -1, -1)


def _source_files(checkpoint: Checkpoint) -> list[SourceFile]:
    """Every file that was read; an index holds no tensors itself."""
    tensors = {file.path: len(file.tensors) for file in checkpoint.files}
    return [
        SourceFile(path.name, checkpoint.described, sha256(path), tensors.get(path, 0)) for path in checkpoint.paths
    ]
