"""The manifest: what an engine folder says of itself. Written by the exporter, read by every runtime; the only thing
they share."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import msgspec

from page4d.checkpoints.load_report import LoadReport
from page4d.errors import EngineError
from page4d.files import OutputKind, write_atomically
from page4d.layout import Layout
from page4d.manifest_checks.manifest_check import check_manifest
from page4d.manifest_checks.manifest_files import CONSTANTS as CONSTANTS
from page4d.system.folder_file import open_inside
from page4d.system.strict_json import LARGEST, require_strict

FORMAT = 1
MANIFEST = "manifest.json"
PREDICTIONS = ("points", "confidence", "camera")
"""Stages, and their outputs, that read the last kept layer: Pi3's heads."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A stage's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """`uint8`, `int32`, `float32`, `float16` or `bfloat16`."""
    suffix: str = ""
    """Inside the engine an output may not be called as an input is: `tokens` then leaves as `tokens_out`."""

    @property
    def binding(self) -> str:
        """The name inside the engine."""
        return self.name + self.suffix


class Accuracy(msgspec.Struct, frozen=True):
    """How far an output lies from the reference's."""

    cosine: float
    max_abs: float
    relative_l2: float
    nans: int


class StageEntry(msgspec.Struct, frozen=True):
    """One engine of the chain. Tensors meet by name: an output is the next stage's input of the same name."""

    name: str
    kind: str
    """`encoder`, `mask_head`, `view_sa`, `time_sa`, `global_sa`, or one of `PREDICTIONS`."""
    layer: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weight_bytes: int
    flop: int
    """Of one call: multiply and add counted as two."""
    largest: int
    """Numbers in the largest tensor inside; TensorRT refuses 2^31."""
    calls: int = 1
    """Calls that one clip takes; more than one for the encoder, which goes over the images in chunks."""
    file: str | None = None
    """The ONNX file, relative to the folder."""
    accuracy: dict[str, Accuracy] = {}
    """Per output, against the reference fed with the same input."""
    eps: dict[str, float] = {}
    """Of its LayerNorms, as the weights' source has them: `norm` of tokens, `qk_norm` of each head's q and k."""
    floating: tuple[str, ...] = ()
    """In int8 and fp8: matrices of the linear layers whose activations are not quantised, for their measured error."""
    ties: float = 0.0
    """Relative L2 by which the outputs may differ because landmarks are of equal confidence but for rounding: measured,
    the other way round."""

    def allowed(self, tolerance: float) -> float:
        """Relative L2 error of an output that passes: the tolerance, and twice `ties`, since one swapped landmark may
        undo another's effect."""
        return tolerance + 2 * self.ties


class KeptLayer(msgspec.Struct, frozen=True):
    """An output `[T,V,N,S*C]` that the runtime gathers from token outputs. A later stage may read it as
    `layers.<layer>`."""

    layer: int
    stages: tuple[str, ...]
    """Whose `tokens` are put side by side, per stream."""
    streams: int
    """S; a stage that computes one stream stands for all S."""


class Verification(msgspec.Struct, frozen=True):
    """On what the accuracy figures were measured."""

    layout: dict[str, int]
    """Smaller than the engines' where that was too large for the machine."""
    frames: str
    tolerance: float
    """Of the relative L2 of every output."""
    chain: dict[str, Accuracy]
    """Mask, kept layers, memory and predictions of the whole chain in the engines' precision, against the float32
    reference."""


class PlanEntry(msgspec.Struct, frozen=True):
    """One stage as a TensorRT plan."""

    file: str
    """Relative to the folder."""
    plugins: int
    """Attentions that are this project's plugin."""
    fused: int
    """Attentions that are TensorRT's own fused kernel."""
    seconds: float
    """That the build took."""


def runs_on(chips: tuple[str, ...], least_chip: int) -> str:
    """Chips of plans, in words."""
    return ", ".join(chips) or f"sm_{least_chip} and newer"


class Plans(msgspec.Struct, frozen=True):
    """The stages as TensorRT plans: by what they were built, and where they run."""

    library: str
    """`tensorrt` or `rtx`: neither loads the other's plans."""
    version: str
    """Of the library; only the same one loads them."""
    chips: tuple[str, ...]
    """`sm_<compute capability times ten>`; empty: every chip from `least_chip` on."""
    kernels: str | None
    """sha256 of the source of the attention kernels that their plugins launch; None where they have none."""
    stages: dict[str, PlanEntry]
    """By stage name."""
    optimization_level: int | None = None
    """None: the library's default."""
    least_chip: int = 80
    """Where `chips` is empty: compute capability, times ten, of the oldest GPU that they run on."""

    @property
    def runs_on(self) -> str:
        """The chips, in words."""
        return runs_on(self.chips, self.least_chip)

    def fits(self, capability: int) -> bool:
        """Whether they run on a GPU of this compute capability, times ten."""
        return f"sm_{capability}" in self.chips if self.chips else capability >= self.least_chip


class Golden(msgspec.Struct, frozen=True):
    """One clip and what the reference makes of it: what every machine can check its engines with."""

    inputs: str
    """`.safetensors`: `images`, and where the engines take them `mask_ext`, `keypoints`, `fundamental`."""
    expected: str | None
    """`.safetensors`: of every stage's outputs, as `<stage>/<output>`, a sample in float32: the numbers at `i *
    2654435761 % size` of the flat tensor, i below min(size, 16384). None where the layout was too large for the
    reference on the machine that
    exported."""
    tolerance: dict[str, float]
    """By `<stage>/<output>`: the relative L2 error that passes, of the chain's result up to there over the sample."""


class Manifest(msgspec.Struct, frozen=True):
    """Everything a runtime needs to know, and where the engines come from."""

    page4d: str
    """Version of the exporter."""
    model: dict[str, Any]
    """`ModelConfig` as plain values."""
    weights: str
    """Where the weights come from, in words."""
    layout: dict[str, int]
    precision: str
    """A `Precision`: `float32`, `float16`, `bfloat16`, `int8` or `fp8`."""
    encoder_images: int
    """Images per encoder call."""
    stages: tuple[StageEntry, ...]
    """In the order they run."""
    keep: tuple[KeptLayer, ...]
    loaded: LoadReport | None = None
    """What came from which checkpoint; None where all weights are seeded."""
    verification: Verification | None = None
    attention: str = "auto"
    """What TensorRT makes of the attention nodes: `auto`, `plugin` or `native`."""
    plans: Plans | None = None
    """TensorRT plans, where they were built."""
    golden: Golden | None = None
    """The self-check's clip; None in folders that were written for a benchmark."""
    files: dict[str, str] = {}
    """sha256 of every file, by path relative to the folder."""
    made: dict[str, str] = {}
    """Date, machine, versions."""
    format: int = FORMAT

    @property
    def shape(self) -> Layout:
        """The layout as an object."""
        return Layout(**self.layout)

    def stage(self, name: str) -> StageEntry:
        """The stage called `name`."""
        for entry in self.stages:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def makes(self, tensor: str) -> bool:
        """Whether any stage has an output called `tensor`."""
        return any(spec.name == tensor for entry in self.stages for spec in entry.outputs)

    def reads(self, tensor: str) -> bool:
        """Whether any stage has an input called `tensor`."""
        return any(spec.name == tensor for entry in self.stages for spec in entry.inputs)

    def spec(self, tensor: str) -> TensorSpec:
        """The first input or output called `tensor`."""
        for entry in self.stages:
            for found in (*entry.inputs, *entry.outputs):
                if found.name == tensor:
                    return found
        raise KeyError(tensor)


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    write_atomically(folder / MANIFEST, text)


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        EngineError: there is none, it is damaged, its format is another version's, or its parts do not go together.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise EngineError("there is no such engine folder", got=folder, hint="page4d-export -o ENGINES --T .. --V ..")
    if not os.path.lexists(path):
        what = "the engine folder has no manifest.json: its export did not finish, or it is another kind of folder"
        raise EngineError(what, got=folder, hint="page4d-export again")
    text = _content(folder)
    try:
        require_strict(text)
        version = msgspec.json.decode(text, type=dict[str, Any]).get("format")
        if version != FORMAT:
            hint = "page4d-export again with this version"
            raise EngineError("manifest.json has another format version", got=version, allowed=FORMAT, hint=hint)
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EngineError(f"manifest.json is damaged: {error}", got=path, hint="page4d-export again") from None
    check_manifest(manifest)
    return manifest


def _content(folder: pathlib.Path) -> bytes:
    """Of the manifest, not more than a manifest may have."""
    path = folder / MANIFEST
    try:
        with open_inside(folder, MANIFEST) as file:
            content = file.read(LARGEST + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise EngineError(f"manifest.json cannot be read: {error.strerror}", got=path) from None
    if len(content) > LARGEST:
        raise EngineError(
            "manifest.json is too large", got=f"{size} bytes", allowed=f"up to {LARGEST}", hint="page4d-export again"
        )
    return content


class _Listing(msgspec.Struct, frozen=True):
    """What every format version's manifest has."""

    page4d: str
    format: int
    stages: list[dict[str, Any]]
    files: dict[str, str]


def _listed(folder: pathlib.Path) -> list[str] | None:
    """The files of an engine folder of any format version; None where manifest.json is not this project's."""
    path = folder / MANIFEST
    try:
        return (
            None if path.stat().st_size > LARGEST else list(msgspec.json.decode(path.read_bytes(), type=_Listing).files)
        )
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


ENGINE_FOLDER = OutputKind("an engine folder", MANIFEST, _listed)
