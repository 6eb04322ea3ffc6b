"""`ExportRequest`: a whole export, checked before the long work begins; and `export`, the same for Python programs."""

from __future__ import annotations

import enum
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.errors import MissingBackendError, UsageError
from page4d.files import refuse_foreign
from page4d.layout import Layout
from page4d.manifest import Manifest
from page4d.manifest_checks.manifest_file import ENGINE_FOLDER
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_export.model_source import ModelSource
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sparse_price import stage_tolerance

if TYPE_CHECKING:
    from page4d.model import Page4D
    from page4d_engines.clip.frame_folder import FrameFolder
    from page4d_engines.tensorrt.plans import PlanBuildRequest

Choice = TypeVar("Choice", bound=enum.Enum)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """An export that can begin.

    Attributes:
        source: the network and its weights.
        plan: its stages, made from the source's config.
        out: engine folder to write; an engine folder there is replaced.
        clip: frames to verify on; None: a rendered clip. Static ranges are measured on its first window and verified on
            its last.
        tolerance: relative L2 error that a stage may have; None: the precision's own. With sparse attention: that a
            result may have against the exact model; not None.
        plans: the TensorRT plans to build; None: ONNX alone.
        plugin_library: file that `plans` was given, which `out` must not replace.
    """

    source: ModelSource
    plan: ExportPlan
    out: pathlib.Path
    clip: FrameFolder | None = None
    tolerance: float | None = None
    plans: PlanBuildRequest | None = None
    plugin_library: pathlib.Path | None = None

    def check(self) -> None:
        """Refuse what would end the export after minutes.

        Raises:
            MissingBackendError: PyTorch is not installed.
            UsageError: `out` holds something that is not an engine folder, or lies in an input; a clip of too few
                frames or cameras, or without the calibration that the plan needs; sparse attention without a tolerance;
                static ranges without a clip.
        """
        stage_tolerance(self.plan, self.tolerance)
        if self.plan.static_ranges and self.clip is None:
            raise UsageError(
                "--static-ranges without --frames: filmed frames exceed the ranges of the rendered clip",
                allowed="--static-ranges with a folder of frames like those that the engines will see",
                hint="--frames FOLDER",
            )
        _require_torch()
        inputs = dict(self.source.files)
        if self.plugin_library is not None:
            inputs["the plugin library"] = self.plugin_library
        if self.clip is not None:
            inputs |= self.clip.places
        refuse_foreign(self.out, ENGINE_FOLDER, inputs)
        if self.clip is not None:
            from page4d_engines.clip.window_reader import WindowReader, windows

            config = self.plan.config
            if config.known_cameras and self.clip.cameras is None:
                raise UsageError(
                    "the engines are to know the cameras, and the frames to verify on have none",
                    got=self.clip.path,
                    allowed="frames with cameras.json beside them",
                    hint="no --frames, for a rendered clip",
                )
            WindowReader(self.clip, self.plan.layout, None, False, config.epipolar)
            windows(self.clip.count, self.plan.layout.T, self.plan.layout.T)

    def run(self, progress: Progress = SILENT) -> Manifest:
        """Load the weights and write the engine folder: whole, or not at all.

        Raises:
            UsageError, MissingBackendError: as `check`; a checkpoint that does not fit the model.
            AccuracyError: a stage departs from the reference, or a plan is not what was asked.
            EngineError, OutOfMemoryError: TensorRT builds no plan.
        """
        self.check()
        from page4d_export.exporter import write_verified
        from page4d_export.sample_clip import SampleClip

        progress.note(f"weights: {self.source.described}", 0.0)
        clip_at = SampleClip.rendered if self.clip is None else functools.partial(SampleClip.read, self.clip)
        calibrated_at = None
        if self.clip is not None and self.plan.static_ranges:
            # so that the measured errors are of frames whose ranges were not measured
            calibrated_at, clip_at = clip_at, functools.partial(SampleClip.read, self.clip, last=True)
        return write_verified(
            self.source.model(), self.plan, self.out, clip_at, self.tolerance, progress, self.plans, calibrated_at
        )


def export(
    model: Page4D | str | pathlib.Path,
    *,
    T: int,
    V: int,
    out: str | pathlib.Path,
    height: int = 518,
    width: int = 518,
    B: int = 1,
    precision: Precision | str = Precision.FLOAT32,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    registers: str | None = None,
    time_sa: str | None = None,
    seed: int = 0,
    heads: Sequence[str] | None = None,
    keypoints: bool = False,
    absent_views: bool = False,
    static_ranges: bool = False,
    attention: AttentionChoice | str = AttentionChoice.AUTO,
    encoder_images: int | None = None,
    head_images: int | None = None,
    frames: str | pathlib.Path | None = None,
    tolerance: float | None = None,
    plans: PlanBuildRequest | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Manifest:
    """Export a model as a folder of verified engines, as `page4d-export` does.

        manifest = page4d_export.export("model.safetensors", T=1, V=4, precision="float16", out="engines")

    The folder is written whole or not at all. An engine folder at `out` is replaced, anything else there is refused.

    Args:
        model: a `page4d.Page4D` with its weights, or the path of a checkpoint of Pi3, Pi3X, VGGT, PAGE-4D or Depth
            Anything 3: a file, the index of several, a folder, or a repository on a hub: `owner/name` if nothing is
            there of that name, `hf:owner/name@revision:file`. Two checkpoints in one model: `page4d.load`.
        T: timesteps of a window.
        V: views (cameras).
        out: engine folder to write.
        height, width: of the images in pixels, multiples of 14.
        B: clips side by side. Engines of more than one are for Python programs; `page4d-run` takes one.
        precision: of weights and tokens: "float32", "float16", "bfloat16", "int8" (CPU), "fp8" (TensorRT).
        preset: the network that a checkpoint's weights go into; None: the checkpoint's own published model.
        options: of `page4d.ModelConfig`, in place of the preset's: `{"global_strategy": "memory"}`, `{"mask": False}`,
            `{"known_cameras": True}`, `{"sparse_attention": 4, "sparse_layers": (8, 9, 10)}`.
        registers: special tokens of a checkpoint: "split", "truncate" (Pi3's) or "page4d".
        time_sa: weights of Time-SA: "page4d" or "pi3".
        seed: of weights that the checkpoint does not have.
        heads: the checkpoint's heads that become stages, by name (`page4d.config.Head`); empty: none; None: all that
            it has.
        keypoints: whether Global-SA reads keypoint maps `[T,V,P,1]`.
        absent_views: whether the engines take `present` `[T,V]`, and go without the images that are not there.
        static_ranges: in int8: activations are rounded to ranges that are measured on `frames`, which have to be given;
            faster with OpenVINO. Values more than a quarter beyond these ranges are cut off.
        attention: what TensorRT makes of attention: "auto", "plugin" or "native".
        encoder_images: images of an encoder call; None: the largest divisor of T*V*B up to 16, in int8 without static
            ranges 1.
        head_images: images of a call of the heads that make large maps (depth and points of VGGT and Depth Anything 3,
            points and confidence of Pi3X); None: as many as have no more patches than one of 518x518, in int8
            without static ranges 1.
        frames: folder of frames to verify on, as `page4d-run` reads it; None: a rendered clip.
        tolerance: relative L2 error that a stage's outputs may have, above 0, up to 1; None: the precision's own. With
            sparse attention: that the results may have against the exact model; it has to be given.
        plans: the TensorRT plans to build (`page4d_engines.tensorrt.plans.PlanBuildRequest`); None: ONNX alone.
        progress: called with what starts and the share of the work that is done, 0 to 1; None: not.

    Returns:
        The manifest of the folder: stages with shapes, dtypes and measured accuracy. `Pipeline.load(out)` runs it.

    Raises:
        UsageError: an argument that is not allowed, a checkpoint that is damaged or another model's, an `out` that is
            not an engine folder and not empty.
        AccuracyError: a stage departs from the reference by more than the tolerance, or a sparse model from the exact
            one.
        EngineError, MissingBackendError, OutOfMemoryError: plans that cannot be built here.
    """
    require_tolerance(tolerance)
    layout = Layout(T, V, height, width, B)
    told = Progress(progress, end=0.0)  # the share of the export that a download is, is not known
    source = _source(model, preset, dict(options or {}), T, seed, registers, time_sa, heads, told)
    precision, attention = _choice(Precision, "precision", precision), _choice(AttentionChoice, "attention", attention)
    plan = ExportPlan.make(
        source.config,
        layout,
        precision,
        keypoints,
        encoder_images,
        attention,
        head_images,
        absent_views,
        static_ranges,
    )
    clip = open_clip(frames, layout)
    request = ExportRequest(
        source=source, plan=plan, out=pathlib.Path(out), clip=clip, tolerance=tolerance, plans=plans
    )
    return request.run(Progress(progress))


def require_tolerance(tolerance: float | None) -> None:
    """Raise unless this is a tolerance, or None.

    Raises:
        UsageError: not above 0 and up to 1; NaN among them, with which every comparison would pass.
    """
    if tolerance is not None and not 0 < tolerance <= 1:
        raise UsageError(
            "--tolerance is out of range",
            got=tolerance,
            allowed="above 0, up to 1",
            hint="none, for the precision's own",
        )


def open_clip(frames: str | pathlib.Path | None, layout: Layout) -> FrameFolder | None:
    """The folder of frames to verify on.

    Raises:
        UsageError: there is none, or it is not one that engines of this layout read.
    """
    if frames is None:
        return None
    from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages

    return FrameFolder.open(pathlib.Path(frames), loose=UngroupedImages.of(layout))


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingBackendError(
            "exporting needs PyTorch", hint='pip install "page4d[export]", or ".[export]" in a checkout'
        )


def _choice(kind: type[Choice], name: str, value: Choice | str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{name} has no such value", got=value, allowed=", ".join(map(str, kind))) from None


def _source(
    model: Page4D | str | pathlib.Path,
    preset: str | None,
    options: dict[str, Any],
    T: int,
    seed: int,
    registers: str | None,
    time_sa: str | None,
    heads: Sequence[str] | None,
    progress: Progress,
) -> ModelSource:
    if isinstance(model, str | pathlib.Path):
        checkpoint = Checkpoint.open(model, progress)
        return ModelSource.of_file(checkpoint, preset, options, T, seed, registers, time_sa, heads)
    if preset or options or registers or time_sa or seed or heads is not None:
        raise UsageError(
            "preset, options, registers, time_sa, seed and heads are for the path of a checkpoint",
            got="a model that has its weights",
            hint="Page4D(ModelConfig.preset(..)), page4d.load(..), page4d.load_weights(model, ..)",
        )
    return ModelSource.of(model)
