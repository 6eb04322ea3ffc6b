"""The commands: `page4d-export`, and `page4d` with every command under one name."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from page4d.config import PRESETS
from page4d.errors import MissingBackendError, UsageError
from page4d.files import NEW_FOLDER, refuse_foreign, staged
from page4d.layout import Layout
from page4d.manifest_file import ENGINE_FOLDER
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_engines import cli, console
from page4d_engines.cli import Verbose, Version, folder_to_write
from page4d_export.commands.build_flags import BuildWish
from page4d_export.export_plan import Plan
from page4d_export.model_source import DEFAULT_PRESET, ModelSource

if TYPE_CHECKING:
    from page4d_engines.clip.frame_folder import FrameFolder
    from page4d_export.verify import Frames


def export_command(
    context: typer.Context,
    T: Annotated[int | None, typer.Option("--T", help="times of a window", show_default=False)] = None,
    V: Annotated[int | None, typer.Option("--V", help="views", show_default=False)] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PRESETS)}; default: the model that a single checkpoint is, else {DEFAULT_PRESET}",
            show_default=False,
        ),
    ] = None,
    pi3: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--pi3", help="Pi3's model.safetensors; as all checkpoints a file, an index of several, or a folder"
        ),
    ] = None,
    page4d: Annotated[pathlib.Path | None, typer.Option("--page4d", help="a checkpoint of PAGE-4D or VGGT")] = None,
    registers: Annotated[str | None, typer.Option(help="special tokens: split, truncate (of Pi3) or page4d")] = None,
    time_sa: Annotated[str | None, typer.Option("--time-sa", help="weights of Time-SA: page4d or pi3")] = None,
    mask: Annotated[str | None, typer.Option(help="on or off: whether the published PAGE-4D masks; default on")] = None,
    height: Annotated[int, typer.Option(help="image height in pixels, a multiple of 14")] = 518,
    width: Annotated[int, typer.Option(help="image width in pixels, a multiple of 14")] = 518,
    B: Annotated[int, typer.Option("--B", help="clips side by side")] = 1,
    fp16: Annotated[bool, typer.Option("--fp16", help="float16 weights and tokens")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 weights and tokens")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit linear layers, for ONNX Runtime on a processor")] = False,
    fp8: Annotated[
        bool,
        typer.Option("--fp8", help="8-bit floating-point linear layers among float16, for TensorRT on SM89 and newer"),
    ] = False,
    out: Annotated[
        pathlib.Path,
        typer.Option("-o", "--out", parser=folder_to_write, metavar="FOLDER", help="engine folder to write"),
    ] = pathlib.Path("engines"),
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="a model option, e.g. global_strategy=memory; repeatable"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
    keypoints: Annotated[bool, typer.Option("--keypoints", help="Global-SA takes keypoint maps")] = False,
    attention: Annotated[
        str,
        typer.Option(help="in TensorRT: auto (the plugin where it is there), plugin, native (TensorRT's own fusion)"),
    ] = "auto",
    encoder_images: Annotated[
        int | None, typer.Option(help="images of an encoder call; default: the largest divisor of T*V up to 16")
    ] = None,
    frames: Annotated[pathlib.Path | None, typer.Option(help="frames to verify on; default: a rendered clip")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="relative L2 error that a stage may have; default by precision")
    ] = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="ONNX alone, also where TensorRT is installed")] = False,
    build_only: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--build-only",
            metavar="ENGINES",
            help="build the TensorRT plans of an engine folder that is there; needs no torch",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="what builds plans: tensorrt, rtx (TensorRT-RTX, on any machine), auto (what is installed)"),
    ] = "auto",
    target: Annotated[
        str | None,
        typer.Option(
            help="chips for TensorRT-RTX, e.g. sm_89,sm_120; default: sm_80 (fp8: sm_89) and newer", show_default=False
        ),
    ] = None,
    hardware_compat: Annotated[
        bool, typer.Option("--hardware-compat", help="TensorRT plans for every GPU from Ampere on, a little slower")
    ] = False,
    optimization_level: Annotated[
        int | None, typer.Option(help="of TensorRT's builder, 0 to 5; default: TensorRT's own", show_default=False)
    ] = None,
    plugin_library: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="libpage4d_plugins.so, built from plugins/csrc: travels with the engines, for C++ programs",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="the manifest or plan as one JSON document on stdout")
    ] = False,
    verbose: Verbose = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False,
    version: Version = False,
) -> None:
    """Export a model as verified engines: one ONNX file per stage, each held against the PyTorch reference."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        wish = BuildWish(no_build, backend, target, hardware_compat, optimization_level, plugin_library)
        if build_only is not None:
            wish.refuse_others(context)
            _build_only(build_only, wish, as_json, quiet)
            return
        if T is None or V is None:
            raise UsageError(
                "an export needs to know how many times and views the engines see",
                got="no --T" if T is None else "no --V",
                hint="--T 4 --V 4",
            )
        if tolerance is not None and not 0 < tolerance <= 1:  # NaN among them, with which every comparison passes
            raise UsageError(
                "--tolerance is out of range",
                got=tolerance,
                allowed="above 0, up to 1",
                hint="none, for the precision's own",
            )
        precision = _precision({"--fp16": fp16, "--bf16": bf16, "--int8": int8, "--fp8": fp8})
        layout = Layout(T, V, height, width, B)
        source = ModelSource.choose(
            preset, _overrides(option or []) | _mask(mask), T, seed, pi3, page4d, registers, time_sa
        )
        if source.chosen is not None:
            console.say(f"preset {source.chosen}, as {source.described} was published", quiet)
        plan = Plan.make(source.config, layout, precision, keypoints, encoder_images, _attention(attention))
        if plan.attention is AttentionChoice.NATIVE and (stages := plan.unfused()):
            console.say(
                f"--attention native: TensorRT does not fuse, and holds an n x n tensor in, {', '.join(stages)}", quiet
            )
        if dry_run:
            for note in source.notes:
                console.say(f"note: {note}", quiet)
            from page4d_export.commands.tables import plan_document, print_plan

            console.write_json(plan_document(plan)) if as_json else print_plan(plan)
            return
        _export(plan, source, out, frames, tolerance, wish, as_json, quiet)

    raise typer.Exit(console.run(body))


_PRECISIONS = {
    "--fp16": Precision.FLOAT16,
    "--bf16": Precision.BFLOAT16,
    "--int8": Precision.INT8,
    "--fp8": Precision.FP8,
}


def _precision(flags: dict[str, bool]) -> Precision:
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", allowed="one of them, or none for float32")
    return _PRECISIONS[given[0]] if given else Precision.FLOAT32


def _attention(word: str) -> AttentionChoice:
    try:
        return AttentionChoice(word)
    except ValueError:
        raise UsageError(
            "--attention has no such value", got=word, allowed=", ".join(map(str, AttentionChoice))
        ) from None


def _mask(word: str | None) -> dict[str, Any]:
    if word not in (None, "on", "off"):
        raise UsageError("--mask has no such value", got=word, allowed="on, off")
    return {} if word is None else {"mask": word == "on"}


def _build_only(engines: pathlib.Path, wish: BuildWish, as_json: bool, quiet: bool) -> None:
    from page4d_engines.engine_folder import EngineFolder
    from page4d_engines.tensorrt.plans import build_into
    from page4d_export.commands.tables import print_plans

    folder = EngineFolder.open(engines)
    build = wish.demanded(folder.manifest.precision, folder.manifest.attention)
    for warning in build.warnings:
        console.say(f"warning: {warning}", quiet)
    with console.progress(quiet) as progress:
        manifest = build_into(folder, build, progress)
    if as_json:
        console.write_json(manifest)
    if not quiet:
        print_plans(manifest)
    console.say(f"engines: {engines}", quiet)


def _export(
    plan: Plan,
    source: ModelSource,
    out: pathlib.Path,
    frames: pathlib.Path | None,
    tolerance: float | None,
    wish: BuildWish,
    as_json: bool,
    quiet: bool,
) -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise MissingBackendError(
            "exporting needs PyTorch", hint='pip install "page4d[export]", or ".[export]" in a checkout'
        ) from None
    from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
    from page4d_export.commands.tables import print_accuracy, print_plans
    from page4d_export.exporter import export
    from page4d_export.verify import Frames

    plans, why = wish.of(plan.precision, plan.attention)
    console.say(why, quiet or not why)
    for warning in [] if plans is None else plans.warnings:
        console.say(f"warning: {warning}", quiet)
    inputs = {
        f"the checkpoint {checkpoint.name}": checkpoint.path
        for checkpoint in (source.pi3, source.page4d)
        if checkpoint is not None
    }
    if wish.plugin_library is not None:
        inputs["the plugin library"] = wish.plugin_library
    clip = None if frames is None else FrameFolder.open(frames, loose=UngroupedImages.of(plan.layout))
    refuse_foreign(out, ENGINE_FOLDER, inputs | ({} if clip is None else clip.places))
    for note in () if clip is None else clip.notes:
        console.say(f"note: {note}", quiet)
    used = Frames.rendered if clip is None else _frames(clip, plan)
    with console.progress(quiet) as progress:
        progress(f"weights: {source.described}", 0.0)
        model = source.model()
        manifest = export(model, plan, out, used, tolerance, progress, plans)
    if model.report is not None:
        console.say(f"{model.report}\n", quiet)
    if as_json:
        console.write_json(manifest)
    if not quiet:
        print_accuracy(manifest)
        print_plans(manifest)
    console.say(f"weights: {manifest.weights}; engines: {out}", quiet)


def _frames(folder: FrameFolder, plan: Plan) -> Callable[[Layout], Frames]:
    """Frames to verify on, checked now: the export takes minutes."""
    from page4d_engines.clip.window_reader import WindowReader, windows
    from page4d_export.verify import Frames

    WindowReader(folder, plan.layout, None, False, plan.config.epipolar)
    windows(folder.count, plan.layout.T, plan.layout.T)
    return lambda layout: Frames.read(folder, layout)


def _overrides(options: list[str]) -> dict[str, Any]:
    """`--set name=value` as config fields: JSON where it reads as JSON, a list for `0,3`, else the word."""
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise UsageError("--set wants NAME=VALUE", got=option, hint="--set global_strategy=memory")
        is_list = not text.startswith("[") and ("," in text or name in _LISTS)
        words = [_value(word) for word in text.split(",") if word] if is_list else _value(text)
        # the two words that look like numbers
        values[name] = text if name == "mask_head" else words
    return values


_LISTS = ("global_layers", "keep_layers", "dilations", "order")


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def clip_command(
    out: Annotated[
        pathlib.Path,
        typer.Option(
            "-o",
            "--out",
            parser=folder_to_write,
            metavar="FOLDER",
            help="folder to write: frames/, masks/, cameras.json",
        ),
    ],
    T: Annotated[int, typer.Option("--T", help="times")] = 8,
    V: Annotated[int, typer.Option("--V", help="cameras")] = 4,
    width: Annotated[int, typer.Option(help="pixels")] = 320,
    height: Annotated[int, typer.Option(help="pixels")] = 240,
    seed: Annotated[int, typer.Option(help="of the scene")] = 0,
    verbose: Verbose = False,
) -> None:
    """Render a moving scene seen by calibrated cameras: frames, true dynamic masks, cameras."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_export.sample_scene.clip import render, save

        refuse_foreign(out)
        with staged(out, NEW_FOLDER) as folder:
            save(render(T, V, width, height, seed), folder)
        console.say(f"{T} frames of {V} cameras: {out}")

    raise typer.Exit(console.run(body))


def weights_command(
    file: Annotated[
        pathlib.Path,
        typer.Argument(help="a checkpoint of Pi3, VGGT or PAGE-4D: a file, an index of several, or a folder"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="as one JSON document on stdout")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what a checkpoint is, without loading it: model, generation, layers, registers."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d.checkpoints.checkpoint import Checkpoint
        from page4d_export.commands.tables import print_checkpoint

        checkpoint = Checkpoint.open(file)
        console.write_json(checkpoint.document()) if as_json else print_checkpoint(checkpoint)

    raise typer.Exit(console.run(body))


def inspect_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder")],
    as_json: Annotated[bool, typer.Option("--json", help="the manifest as one JSON document on stdout")] = False,
    verbose: Verbose = False,
) -> None:
    """Check an engine folder and print what it is: model, layout, stages, measured accuracy."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_engines.engine_folder import EngineFolder
        from page4d_export.commands.tables import print_accuracy, print_plans

        manifest = EngineFolder.open(engines).manifest
        if as_json:
            console.write_json(manifest)
        else:
            print_accuracy(manifest, detailed=True)
            print_plans(manifest, stderr=False)

    raise typer.Exit(console.run(body))


def export() -> None:
    """Entry point of `page4d-export`."""
    cli.start(cli.command(export_command))


def main() -> None:
    """Entry point of `page4d`."""
    from page4d_export.commands import plugins, verify
    from page4d_export.commands.bench import bench_command
    from page4d_export.commands.triton import export_triton_command

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def page4d(version: Version = False) -> None:
        """Multi-camera 4D perception as verified engines."""

    app.command("export")(export_command)
    app.command("run")(cli.run)
    app.command("inspect")(inspect_command)
    app.command("verify")(verify.verify_command)
    app.command("doctor")(verify.doctor_command)
    app.command("export-triton")(export_triton_command)
    app.command("weights")(weights_command)
    app.command("bench")(bench_command)
    app.command("clip")(clip_command)
    app.add_typer(plugins.app, name="plugins")
    cli.start(app)
