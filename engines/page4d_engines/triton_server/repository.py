"""`Repository`: the model repository that Triton Inference Server is started on, a folder per model."""

from __future__ import annotations

import enum
import pathlib
import shlex
import shutil
from dataclasses import dataclass

import msgspec
import onnx

from page4d.errors import EngineError, UsageError
from page4d.files import NEW_FOLDER, link_or_copy, refuse_foreign, staged
from page4d.manifest import Flavor, StageEntry, TensorSpec
from page4d.precision import Precision
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.constants import read_constants
from page4d_engines.triton_server.config import Config, Platform, Port
from page4d_engines.triton_server.ensemble import Ensemble

PLUGINS = "/opt/page4d/libpage4d_plugins_register.so"
"""Where the printed command expects the plugins' library; Triton only opens it, so it is the one that registers the
other."""
_POOL = 1 << 26  # bytes of GPU memory that Triton sets aside for tensors unless it is told more


class Backend(str, enum.Enum):
    """What Triton runs the stages with."""

    AUTO = "auto"
    """TensorRT; plain ONNX Runtime holds n x n tensors, which nobody should get without asking."""
    TENSORRT = "tensorrt"
    ONNXRUNTIME = "onnxruntime"

    def __str__(self) -> str:
        return self.value


class Model(msgspec.Struct, frozen=True):
    """One folder of the repository."""

    name: str
    platform: str


class Written(msgspec.Struct, frozen=True):
    """A repository that was written."""

    ensemble: str
    models: tuple[Model, ...]
    inputs: tuple[TensorSpec, ...]
    """Of the ensemble; a request gives all of them."""
    outputs: tuple[TensorSpec, ...]
    tensor_bytes: int
    """Of the tensors between models, for each request that is served at the same time."""
    command: str
    """That starts the server."""
    notes: tuple[str, ...] = ()
    """What the server needs besides."""


@dataclass(frozen=True)
class Repository:
    """A model repository: a model per stage, glue, and the ensemble `page4d` of them all.

    A request gives the ensemble `images` uint8 `[T,V,H,W,3]` and, where the engines read them, `mask_ext` and
    `keypoints` float32 `[T,V,P,1]`, `fundamental` float32 `[V,V,3,3]` and `cameras` float32 `[V,9]` (of
    `page4d.network.known_cameras`): all of them, zeros for a mask that is not known. It gets what the heads give, where
    the engines make it: `mask`, `layers.<i>`, `memory`, `points`, `depth`, `sky` and their confidences; and `camera` as
    the stage's numbers `[T,V,12]` or `[T,V,9]`, of which `page4d.network.poses.camera_to_world` makes poses, and of
    nine `intrinsics` a K. What the runtime does after the heads is left to the caller: points and positions are to be
    multiplied by `metric`. Memory starts from the learned one, or from the input `memory`, in which case the new one is
    `memory_out`.
    """

    folder: EngineFolder
    platform: Platform
    ensemble: Ensemble

    @classmethod
    def of(cls, folder: EngineFolder, backend: Backend = Backend.AUTO, memory_input: bool = False) -> Repository:
        """Plan the repository of an engine folder.

        Args:
            folder: the engines.
            backend: what Triton is to run them with.
            memory_input: whether requests give the memory that a window starts from.

        Raises:
            UsageError: there are no plans that Triton can load, ONNX Runtime is to run bfloat16, the encoder or a head
                takes several calls, a reference view is to be chosen, images may be absent, or there is no memory to
                give.
            EngineError: a stage has no plan.
        """
        manifest = folder.manifest
        platform = Platform.ONNX if backend is Backend.ONNXRUNTIME else Platform.PLAN
        if platform is Platform.PLAN:
            _refuse_plans(folder)
        elif manifest.precision is Precision.BFLOAT16:
            raise UsageError(
                "ONNX Runtime has no bfloat16 convolution and does not load these engines",
                hint="page4d-export --fp16, or without for float32",
            )
        if looped := [entry for entry in manifest.stages if entry.calls > 1]:
            images = manifest.layout.images
            flags = sorted({"--encoder-images" if entry.kind == "encoder" else "--head-images" for entry in looped})
            raise UsageError(
                f"an ensemble calls each stage once, and these engines' {looped[0].name} takes the images in parts",
                got="; ".join(
                    f"{entry.name}: {entry.calls} calls of {images // entry.calls} images" for entry in looped
                ),
                allowed="one call",
                hint=f"page4d-export {' '.join(f'{flag} {images}' for flag in flags)}, the other flags as before",
            )
        if manifest.chooses_reference:
            raise UsageError(
                "an ensemble has no step on the host, and these engines' reference view is chosen there",
                got="--reference-view saddle_balanced",
                allowed="--reference-view first",
                hint="page4d-export --reference-view first, the other flags as before",
            )
        if manifest.takes_present:
            raise UsageError(
                "an ensemble has no step on the host, and which image is the first that is there is found out there",
                got="--absent-views",
                allowed="engines that need every image",
                hint="page4d-export without --absent-views, the other flags as before",
            )
        if memory_input and not manifest.reads("memory"):
            raise UsageError("--memory-input: these engines have no memory", hint="leave it out")
        constants = {
            name: array for name, array in read_constants(folder).items() if not (name == "memory" and memory_input)
        }
        return cls(folder, platform, Ensemble.of(manifest, constants, platform, memory_input))

    def write(self, out: pathlib.Path) -> Written:
        """Write it to a new or empty folder, whole or not at all; plans are linked where the disk is the same.

        Raises:
            UsageError: `out` holds something.
            EngineError: an ONNX file's weights are not in the engine folder.
        """
        refuse_foreign(out, inputs={"the engine folder": self.folder.path})
        stages = self.ensemble.stages
        with staged(out, NEW_FOLDER) as root:
            for entry in self.folder.manifest.stages:
                version = _model_folder(root, stages[entry.name])
                for name, source in self._files(entry).items():
                    target = version / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # weights are copied: onnx refuses files with several names, and would then refuse the folder's own
                    (link_or_copy if source.suffix == ".plan" else shutil.copyfile)(source, target)
            for config, model in self.ensemble.glue:
                onnx.save(model, _model_folder(root, config) / "model.onnx")
            _model_folder(root, self.ensemble.config)
        whole = self.ensemble.config
        configs = (whole, *stages.values(), *(config for config, _ in self.ensemble.glue))
        return Written(
            ensemble=whole.name,
            models=tuple(Model(config.name, str(config.platform)) for config in configs),
            inputs=_described(whole.inputs),
            outputs=_described(whole.outputs),
            tensor_bytes=self.ensemble.bytes,
            command=self._command(out),
            notes=self._notes(),
        )

    def _files(self, entry: StageEntry) -> dict[str, pathlib.Path]:
        """The files of a stage, by their names in the repository."""
        plans = self.folder.manifest.plans
        if self.platform is Platform.PLAN and plans is not None:
            return {"model.plan": self.folder.file(plans.stages[entry.name].file)}
        name = entry.file
        model = onnx.load(self.folder.file(name), load_external_data=False)
        places = {
            place.value
            for tensor in model.graph.initializer
            for place in tensor.external_data
            if place.key == "location"
        }
        files = {"model.onnx": self.folder.file(name)}
        for place in sorted(places):
            source = (pathlib.PurePosixPath(name).parent / place).as_posix()
            if source not in self.folder.manifest.files:
                raise EngineError(
                    f"{name} has weights in a file that is not the engine folder's",
                    got=place,
                    hint="page4d-export again",
                )
            files[place] = self.folder.file(source)
        return files

    def _command(self, out: pathlib.Path) -> str:
        parts = ["tritonserver", f"--model-repository={shlex.quote(str(out))}"]
        plans = self.folder.manifest.plans
        if self.platform is Platform.PLAN and plans is not None:
            if self.ensemble.bytes > _POOL // 2:
                # a pool is one block of memory and fragments; tensors that it cannot hold pass through the host, with
                # one line in the log
                parts.append(f"--cuda-memory-pool-byte-size=0:{-(-self.ensemble.bytes * 3 // 2 // _POOL) * _POOL}")
            if any(plan.plugins for plan in plans.stages.values()):
                parts.append(f'--backend-config=tensorrt,plugins="{PLUGINS}"')
        return " ".join(parts)

    def _notes(self) -> tuple[str, ...]:
        plans = self.folder.manifest.plans
        if self.platform is Platform.ONNX or plans is None:
            return ("ONNX Runtime computes attention from its standard operators here: n x n tensors, for small sizes",)
        notes = [f"the server's TensorRT must be {plans.version}, its GPU one of {plans.runs_on}"]
        if any(plan.plugins for plan in plans.stages.values()):
            notes.append(
                f"the attention plugins: build plugins/csrc, both libraries in {pathlib.PurePosixPath(PLUGINS).parent}"
            )
        return tuple(notes)


def _refuse_plans(folder: EngineFolder) -> None:
    plans = folder.manifest.plans
    hint = (
        f"page4d-export --build-only {folder.path} --backend tensorrt, on the GPU that will serve;"
        " or --backend onnxruntime here, for small sizes"
    )
    if plans is None:
        raise UsageError("the engine folder has no TensorRT plans", got=folder.path, hint=hint)
    if plans.library is not Flavor.TENSORRT:
        raise UsageError(
            "Triton loads plans of TensorRT; TensorRT-RTX's are of another kind",
            got=f"plans of {plans.library} {plans.version}",
            hint=hint,
        )


def _model_folder(root: pathlib.Path, config: Config) -> pathlib.Path:
    """A model's folder with its configuration and, returned, its version's, which an ensemble must have, too."""
    version = root / config.name / "1"
    version.mkdir(parents=True)
    (root / config.name / "config.pbtxt").write_text(config.text(), encoding="utf-8")
    return version


def _described(ports: tuple[Port, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(port.name, port.dims, port.dtype) for port in ports)
