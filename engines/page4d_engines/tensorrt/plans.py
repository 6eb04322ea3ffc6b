"""All stages of an engine folder as TensorRT plans, and the manifest's record of them."""

from __future__ import annotations

import pathlib

import msgspec

from page4d.errors import MissingBackendError, UsageError
from page4d.files import link_or_copy, refuse_foreign, sha256, staged
from page4d.manifest import Flavor, Manifest, PlanEntry, Plans, StageEntry, runs_on
from page4d.manifest_checks.manifest_file import ENGINE_FOLDER, write_manifest
from page4d.precision import Precision
from page4d.published import QUATERNION_NUMBERS
from page4d.system.progress import SILENT, Progress
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder
from page4d_engines.tensorrt.library import Library
from page4d_engines.timing import Stopwatch
from page4d_plugins.driver import capability_of, chip_here
from page4d_plugins.kernel_pack import shipped

TIMING_CACHE = "timing.cache"
PLUGINS = "plugins/libpage4d_plugins.so"
"""The attention plugins for programs without Python, in an engine folder."""


def library_for(flavor: Flavor | None) -> Library:
    """The TensorRT that builds plans on this machine.

    Args:
        flavor: a demand; None takes full TensorRT where it is installed and there is a GPU, else TensorRT-RTX, which
            needs no GPU to build.

    Raises:
        MissingBackendError: it is not installed, or full TensorRT has no GPU.
    """
    if flavor is None:
        try:
            library = Library.find(Flavor.TENSORRT)
            capability_of(0)
            return library
        except MissingBackendError as missing:
            try:
                return Library.find(Flavor.RTX)
            except MissingBackendError:
                raise MissingBackendError(
                    f"there is no TensorRT to build with: {missing.what}", hint=missing.hint
                ) from None
    library = Library.find(flavor)
    if flavor is Flavor.TENSORRT:
        capability_of(0)
    return library


class PlanBuildRequest:
    """A checked request for plans, ready to build."""

    def __init__(
        self,
        library: Library,
        options: BuildOptions,
        precision: Precision,
        native: bool,
        plugins: pathlib.Path | None = None,
    ) -> None:
        """Check what can be checked before an export begins.

        Args:
            library: as `library_for` gives it.
            options: of the build.
            precision: of the engines.
            native: whether attention is left to TensorRT's own fusion.
            plugins: the library of `plugins/csrc`, for any CPU architecture, to be written beside the plans; None: C++
                programs have their own.

        Raises:
            UsageError: float32, whose attention TensorRT does not fuse; GPU architectures that do not have the
                precision; options that this TensorRT does not have; a library that is not of these plugins.
        """
        self.precision = precision
        if not self.precision.has_16_bits:
            why = "does not take these 8-bit products, which are a CPU's"
            if self.precision is Precision.FLOAT32:
                why = "fuses no attention in float32"
            raise UsageError(
                f"TensorRT {why}",
                got=f"plans in {precision}",
                allowed="--fp16, --bf16 or --fp8",
                hint="page4d-export --fp16",
            )
        self.library, self.options, self._plugins = library, options, None if plugins is None else _plugins_of(plugins)
        is_full = library.flavor is Flavor.TENSORRT  # which builds for this machine's GPU
        chip = f"sm_{capability_of(0)}" if is_full else chip_here()
        self.chips = options.targets or (
            (chip,) if is_full and chip is not None and not options.hardware_compat else ()
        )
        if too_old := [name for name in self.chips if int(name.removeprefix("sm_")) < self.precision.least_chip]:
            allowed = f"sm_{self.precision.least_chip} and newer"
            raise UsageError(
                f"there are no {precision} products on these GPU architectures",
                got=", ".join(too_old),
                allowed=allowed,
                hint="page4d-export --fp16",
            )
        self.warnings = library.warnings(chip, native)
        PlanBuilder(library, options)

    @property
    def runs_on(self) -> str:
        """The GPU architectures, as text."""
        return runs_on(self.chips, self.precision.least_chip)

    def build(
        self, source: pathlib.Path, manifest: Manifest, target: pathlib.Path, progress: Progress = SILENT
    ) -> Plans:
        """Build every stage.

        Args:
            source: folder of the ONNX files, by the manifest's names; a timing cache there is used.
            manifest: of the stages.
            target: folder for the plans; what is there by the same names is overwritten.
            progress: called as the builder goes on, with the share of all stages.

        Raises:
            AccuracyError: a plan does not compute what its graph asks for.
            EngineError, OutOfMemoryError: from TensorRT.
            KeyboardInterrupt: interrupted; TensorRT has ended the build.
        """
        cache = source / TIMING_CACHE
        builder = PlanBuilder(self.library, self.options, cache.read_bytes() if cache.is_file() else b"")
        entries: dict[str, PlanEntry] = {}
        for number, stage in enumerate(manifest.stages):
            begin, end = number / len(manifest.stages), (number + 1) / len(manifest.stages)
            progress.note(f"building {stage.name}", begin)
            clock = Stopwatch()
            part = progress.part(begin, end, label=f"building {stage.name}: ")
            plan = builder.build(stage.name, source / stage.file, _computed_in(stage, manifest.precision), part)
            file = f"{stage.name}.plan"
            (target / file).write_bytes(plan.content)
            entries[stage.name] = PlanEntry(file, plan.plugins, plan.fused, round(clock.seconds, 3))
        if self._plugins is not None:
            (target / PLUGINS).parent.mkdir(exist_ok=True)
            (target / PLUGINS).write_bytes(self._plugins)
        if builder.timing_cache:
            (target / TIMING_CACHE).write_bytes(builder.timing_cache)
        kernels = shipped().header.source if any(entry.plugins for entry in entries.values()) else None
        version = ".".join(map(str, self.library.version))
        return Plans(
            library=self.library.flavor,
            version=version,
            chips=self.chips,
            kernels=kernels,
            stages=entries,
            optimization_level=self.options.optimization_level,
            least_chip=self.precision.least_chip,
        )


def build_into(folder: EngineFolder, build: PlanBuildRequest, progress: Progress = SILENT) -> Manifest:
    """Build the plans of an existing engine folder.

    A folder with the new plans takes its place once all are built; other files are linked.

    Raises:
        UsageError: the folder cannot be written, or holds files that are not the engines'.
        AccuracyError, EngineError, OutOfMemoryError: from building; the folder is then as it was.
        KeyboardInterrupt: the folder is as it was, or, where all was built, whole with the new plans.
    """
    old = folder.manifest
    refuse_foreign(folder.path, ENGINE_FOLDER)
    with staged(folder.path, ENGINE_FOLDER) as staging:
        plans = build.build(folder.path, old, staging, progress)
        digests = {
            path.relative_to(staging).as_posix(): sha256(path) for path in sorted(staging.rglob("*")) if path.is_file()
        }
        replaced = set(digests) | (set() if old.plans is None else {entry.file for entry in old.plans.stages.values()})
        kept = {name: digest for name, digest in old.files.items() if name not in replaced}
        for name in kept:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(folder.file(name), staging / name)
        manifest = msgspec.structs.replace(old, plans=plans, files=dict(sorted((kept | digests).items())))
        write_manifest(staging, manifest)
    return manifest


def _computed_in(stage: StageEntry, precision: Precision) -> Precision:
    """The precision of a stage's products: what makes nine camera numbers or metres, or reads cameras, computes in
    float32 in 16-bit folders, too."""
    is_quaternion = stage.kind == "camera" and stage.outputs[0].shape[-1] == QUATERNION_NUMBERS
    return Precision.FLOAT32 if is_quaternion or stage.kind in ("camera_encoder", "metric") else precision


def _plugins_of(path: pathlib.Path) -> bytes:
    """The content of a plugin library, of whatever CPU architecture; the kernels' hash in it is checked.

    Raises:
        UsageError: no such file, another library, or one of other kernels than this package's.
    """
    what, hint = "--plugin-library is no library of these attention plugins", "build plugins/csrc of this version"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--plugin-library cannot be read: {error.strerror}", got=path, hint=hint) from None
    if not content.startswith(b"\x7fELF") or b"page4d_plugins_kernels" not in content:
        raise UsageError(what, got=path, allowed="libpage4d_plugins.so", hint=hint)
    if shipped().header.source.encode() not in content:
        raise UsageError(
            what, got=f"{path}, with other kernels", allowed=f"kernels {shipped().header.source[:12]}..", hint=hint
        )
    return content
