"""The manifest of an engine folder: its stages, their tensors and files.

The exporter writes it and every runtime reads it; it is all that they share.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from page4d.config import PointsFrame as PointsFrame
from page4d.layout import Layout
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.published import PoseDirection as PoseDirection

FORMAT = 1
CONSTANTS = "onnx/constants.safetensors"
"""Inputs of stages that are the model's own: special tokens, memory."""
PREDICTIONS = (
    "points",
    "points_confidence",
    "confidence",
    "depth",
    "depth_confidence",
    "camera",
    "metric",
    "sky",
)
"""Outputs of the heads: the stages `points`, `confidence`, `depth`, `camera`, `metric`, which read kept layers, or the
encoder's features where the model is an encoder alone."""


OF_IMAGES = ("mask", *(name for name in PREDICTIONS if name != "metric"), "intrinsics")
"""Results with values of their own for every image: NaN where it is absent."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A stage's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """`uint8`, `int32`, `float32`, `float16` or `bfloat16`."""
    suffix: str = ""
    """Inside the engine an output may not have an input's name: `tokens` is then called `tokens_out`."""

    @property
    def binding(self) -> str:
        """The name inside the engine."""
        return self.name + self.suffix


class Accuracy(msgspec.Struct, frozen=True):
    """How far an output differs from the reference's."""

    cosine: float
    max_abs: float
    relative_l2: float
    nans: int


class StageEntry(msgspec.Struct, frozen=True):
    """One engine of the chain. Tensors are matched by name: an output is the next stage's input of the same name."""

    name: str
    kind: str
    """`camera_encoder`, `encoder`, `mask_head`, `view_sa`, `time_sa`, `global_sa`, or a head: `points`, `confidence`,
    `depth`, `camera`, `metric`."""
    layer: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weight_bytes: int
    flop: int
    """Of one call: a multiplication and an addition count as two."""
    largest: int
    """Elements of the largest tensor inside; TensorRT refuses 2^31."""
    calls: int = 1
    """Calls for one clip; more than one for the encoder and for heads of DPT or convolutions, which process the images
    in chunks."""
    file: str = ""
    """The ONNX file, relative to the folder; empty until it is written."""
    cpu: str = ""
    """The graph that ONNX Runtime runs on a CPU, relative to the folder, with the weights of `file`; empty in folders
    of before: it is made of `file` whenever they are loaded."""
    cpu_signed: str = ""
    """The same with signed weights, for CPUs with exact products of unsigned by signed bytes; in int8, where the stage
    has such products."""
    accuracy: dict[str, Accuracy] = {}
    """Per output, against the reference on the same input."""
    eps: dict[str, float] = {}
    """Of its LayerNorms, as the weights' source has them: `norm` of tokens, `qk_norm` of each head's q and k."""
    floating: tuple[str, ...] = ()
    """In int8 and fp8: matrices of the linear layers whose activations are not quantised, for their measured error;
    with static ranges, outputs of the attentions whose queries and keys are not."""
    ties: float = 0.0
    """Relative L2 by which the outputs may differ because landmarks have equal confidence up to rounding: measured with
    these landmarks chosen the other way round."""

    def allowed(self, tolerance: float) -> float:
        """Largest relative L2 error of an output that passes, where `tolerance` would pass without ties.

        Twice `ties` is added, since one swapped landmark may cancel another's effect.
        """
        return tolerance + 2 * self.ties


class KeptLayer(msgspec.Struct, frozen=True):
    """An output `[T,V,N,S*C]` that the runtime gathers from the stages' tokens.

    A later stage may read it as `layers.<layer>`.
    """

    layer: int
    stages: tuple[str, ...]
    """Stages whose `tokens` are put side by side, per stream."""
    streams: int
    """S; the tokens of a stage that computes one stream are used for all S."""


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a checkpoint that weights came from."""

    name: str
    """Of the file, without its folder. A checkpoint in several files has an entry for its index and for every file."""
    model: str
    """The checkpoint's model and variant: `PAGE-4D 2026`."""
    sha256: str
    tensors: int
    """Tensors of the model in it, none in an index; a trainer's state is not counted."""
    repository: str = ""
    """`owner/name` on a hub; empty: a file that was given."""
    revision: str = ""
    """Hash of the repository's commit."""


class Group(msgspec.Struct, frozen=True):
    """One part of the network, or tensors of a file that the network does not use. Counts are tensors."""

    name: str
    file: str
    """The source's name; empty where all is new."""
    keys: str
    """Which of the file's keys, as a pattern."""
    loaded: int = 0
    """Loaded unchanged."""
    adapted: int = 0
    """Cut, joined or repeated."""
    new: int = 0
    """Not in any checkpoint: seeded, or set to their neutral value."""
    unused: int = 0


class LoadReport(msgspec.Struct, frozen=True):
    """One load. `str()` of it is a table, and a line for each note."""

    files: tuple[SourceFile, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    """What is unusual in a checkpoint and no error, a sentence each."""

    @property
    def loaded(self) -> int:
        """Tensors loaded unchanged."""
        return sum(group.loaded for group in self.groups)

    @property
    def adapted(self) -> int:
        """Tensors cut, joined or repeated."""
        return sum(group.adapted for group in self.groups)

    @property
    def new(self) -> int:
        """Tensors that are in no checkpoint."""
        return sum(group.new for group in self.groups)

    @property
    def unused(self) -> int:
        """Tensors of the files that the model does not use."""
        return sum(group.unused for group in self.groups)

    def __str__(self) -> str:
        total = Group(
            name="all", file="", keys="", loaded=self.loaded, adapted=self.adapted, new=self.new, unused=self.unused
        )
        rows: list[tuple[str, ...]] = [("group", "file", "keys", "loaded", "adapted", "new", "unused")]
        for group in (*self.groups, total):
            counts = (group.loaded, group.adapted, group.new, group.unused)
            rows.append((group.name, group.file, group.keys, *(str(count or "") for count in counts)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = "  ".join(f"{{:{'<' if column < 3 else '>'}{width}}}" for column, width in enumerate(widths))
        lines = [table.format(*row).rstrip() for row in rows]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class SparsePrice(msgspec.Struct, frozen=True):
    """What it costs and saves that attention over all images reads a sample of the other images' patches."""

    one_in: int
    """Of how many patches one is read."""
    layers: tuple[int, ...]
    """Whose attention does so."""
    tolerance: float
    """Of the relative L2 of every output of `chain`, as the export was asked for."""
    flop: int
    """Of a window."""
    exact_flop: int
    """Of a window whose attention reads every patch."""
    chain: dict[str, Accuracy]
    """As `chain` of the verification, but against the float32 reference that reads every patch."""


class Verification(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the accuracy figures were measured on."""

    layout: Layout
    """Smaller than the engines' layout where that was too large for the machine."""
    frames: str
    tolerance: float
    """Of the relative L2 of every output."""
    chain: dict[str, Accuracy]
    """Mask, kept layers, memory and predictions of the whole chain in the engines' precision, against the float32
    reference, which is as sparse as the engines are."""
    sparse: SparsePrice | None = None
    """Of engines with sparse attention."""


class Unit(enum.Enum):
    """A unit of length that a model knows."""

    METRES = "metres"

    def __str__(self) -> str:
        return self.value


class Flavor(enum.Enum):
    """Two TensorRT libraries with one interface; neither loads the other's plans."""

    TENSORRT = "tensorrt"
    RTX = "rtx"

    def __str__(self) -> str:
        return self.value


class PlanEntry(msgspec.Struct, frozen=True):
    """One stage as a TensorRT plan."""

    file: str
    """Relative to the folder."""
    plugins: int
    """Attention nodes computed by this project's plugin."""
    fused: int
    """Attention nodes computed by TensorRT's own fused kernel."""
    seconds: float
    """Duration of the build."""


def runs_on(chips: tuple[str, ...], least_chip: int) -> str:
    """The GPU architectures of plans as text: `sm_87, sm_90`, or `sm_80 and newer`."""
    return ", ".join(chips) or f"sm_{least_chip} and newer"


class Plans(msgspec.Struct, frozen=True):
    """The stages as TensorRT plans: which library built them, and which GPUs they run on."""

    library: Flavor
    version: str
    """Of the library; only the same version loads them."""
    chips: tuple[str, ...]
    """GPU architectures, `sm_<compute capability times ten>`; empty: all from `least_chip` on."""
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
        """The GPU architectures as text."""
        return runs_on(self.chips, self.least_chip)

    def fits(self, capability: int) -> bool:
        """Whether they run on a GPU of this compute capability, times ten."""
        return f"sm_{capability}" in self.chips if self.chips else capability >= self.least_chip


class Golden(msgspec.Struct, frozen=True):
    """The golden clip: one input and the reference's outputs, for a self-check of the engines on any machine."""

    inputs: str
    """`.safetensors`: `images`, and where the engines take them `mask_ext`, `keypoints`, `fundamental`, `cameras`,
    `present`."""
    expected: str | None
    """`.safetensors`: of every stage's outputs, as `<stage>/<output>`, a sample in float32: the elements at `i *
    2654435761 % size` of the flat tensor, i below min(size, 16384). None where the layout was too large for the
    reference on the machine that exported."""
    tolerance: dict[str, float]
    """By `<stage>/<output>`: the relative L2 error that passes, of the sample after the chain up to this stage."""


class Manifest(msgspec.Struct, frozen=True):
    """Everything that a runtime needs to know, and the origin of the engines."""

    page4d: str
    """Version of the exporter."""
    model: dict[str, Any]
    """`ModelConfig` as plain values."""
    weights: str
    """Origin of the weights, as text."""
    layout: Layout
    precision: Precision
    encoder_images: int
    """Images per encoder call."""
    stages: tuple[StageEntry, ...]
    """In the order they run."""
    keep: tuple[KeptLayer, ...]
    loaded: LoadReport | None = None
    """Which weights came from which checkpoint; None where all are seeded."""
    verification: Verification | None = None
    points_frame: PointsFrame | None = None
    """The frame of `points`; None: the engines give no points, or were exported before this field, and are Pi3's."""
    pose_direction: PoseDirection | None = None
    """Of `camera`'s nine numbers; None: world to camera, or the engines give no such numbers."""
    unit: Unit | None = None
    """Of lengths: metres where `metric` is an output; with an output `sky`, once focal lengths are known. None: one of
    each window's own."""
    static_ranges: bool = False
    """In int8: activations are rounded to ranges that were measured when the engines were exported, not in every
    call."""
    attention: AttentionChoice = AttentionChoice.AUTO
    plans: Plans | None = None
    """TensorRT plans, where they were built."""
    golden: Golden | None = None
    """The self-check's clip; None in folders that were written for a benchmark."""
    files: dict[str, str] = {}
    """sha256 of every file, by path relative to the folder."""
    made: dict[str, str] = {}
    """Date, machine, versions."""
    licence: str = ""
    """Of the weights, in words; empty where none were loaded. What the page says that they are from is what holds."""
    format: int = FORMAT

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

    @property
    def constants(self) -> tuple[str, ...]:
        """Which inputs of the stages are the model's own, and lie in `CONSTANTS`: `special`, `memory`."""
        is_special_constant = self.reads("special") and not self.makes("special")
        return ("special",) * is_special_constant + ("memory",) * self.reads("memory")

    @property
    def chooses_reference(self) -> bool:
        """Whether the host chooses each clip's reference view after the encoder; of two views it is the first."""
        return self.makes("select") and self.layout.V > 2

    @property
    def takes_present(self) -> bool:
        """Whether the engines are told which images are there, and go without the others."""
        return self.reads("present")

    @property
    def knows_cameras(self) -> bool:
        """Whether the images' cameras are an input, in whose frame and unit the results are."""
        return self.reads("cameras")

    @property
    def metres_by_focal_length(self) -> bool:
        """Whether depth is in metres where the images' focal lengths are known, which is not an input."""
        return self.unit is Unit.METRES and self.makes("sky")

    @property
    def direction(self) -> PoseDirection:
        """Of `camera`'s nine numbers."""
        return self.pose_direction or PoseDirection.WORLD_TO_CAMERA

    def spec(self, tensor: str) -> TensorSpec:
        """The first input or output called `tensor`."""
        for entry in self.stages:
            for spec in (*entry.inputs, *entry.outputs):
                if spec.name == tensor:
                    return spec
        raise KeyError(tensor)
