"""`page4d-export`: a model becomes an engine folder."""

from __future__ import annotations

import pathlib
from functools import partial
from typing import Annotated, Literal

import typer

from page4d.checkpoints.sources import Sources
from page4d.config import PRESETS, ReferenceView
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest import Manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose, Version, out_option
from page4d_export.commands.build_flags import BuildFlags, PlanBuilder
from page4d_export.commands.given_checkpoint import KINDS, METAVAR, given_checkpoint
from page4d_export.commands.set_option import layers_named, overrides
from page4d_export.export_request import ExportRequest, open_clip, require_tolerance
from page4d_export.model_source import DEFAULT_PRESET, ModelSource
from page4d_export.plan.export_plan import ExportPlan

model_option = partial(typer.Option, rich_help_panel="Model")
layout_option = partial(typer.Option, rich_help_panel="Layout")
precision_option = partial(typer.Option, rich_help_panel="Precision")
tensorrt_option = partial(typer.Option, rich_help_panel="TensorRT")
output_option = partial(typer.Option, rich_help_panel="Output")


def export_command(
    context: typer.Context,
    file: Annotated[
        pathlib.Path | None,
        typer.Argument(
            metavar=METAVAR,
            help=f"a checkpoint, exported as the model that it is: {KINDS}; without: --pi3 and --page4d, or seeded",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    T: Annotated[int | None, layout_option("--T", help="timesteps of a window", show_default=False)] = None,
    V: Annotated[int | None, layout_option("--V", help="views (cameras)", show_default=False)] = None,
    height: Annotated[int, layout_option(help="image height in pixels, a multiple of 14")] = 518,
    width: Annotated[int, layout_option(help="image width in pixels, a multiple of 14")] = 518,
    B: Annotated[int, layout_option("--B", help="clips side by side; page4d-run takes one")] = 1,
    encoder_images: Annotated[
        int | None, layout_option(help="images of an encoder call; default: the largest divisor of T*V up to 16")
    ] = None,
    head_images: Annotated[
        int | None,
        layout_option(
            help="images of a call of the heads that make large maps (not Pi3's); default: as many as have no more"
            " patches than one of 518x518",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        model_option(
            help=f"{', '.join(PRESETS)}; default: the model that a single checkpoint is, else {DEFAULT_PRESET}",
            show_default=False,
        ),
    ] = None,
    pi3: Annotated[
        pathlib.Path | None,
        model_option("--pi3", metavar=METAVAR, help="Pi3's model.safetensors; given as every checkpoint is"),
    ] = None,
    page4d: Annotated[
        pathlib.Path | None, model_option("--page4d", metavar=METAVAR, help="a checkpoint of PAGE-4D or VGGT")
    ] = None,
    heads: Annotated[
        str | None,
        model_option(
            metavar="NAMES",
            help="heads that become stages, e.g. camera,depth; none for tokens alone; default: all of the checkpoint",
            show_default=False,
        ),
    ] = None,
    registers: Annotated[
        Literal["split", "truncate", "page4d"] | None,
        model_option(help="special tokens: split, truncate (of Pi3) or page4d"),
    ] = None,
    time_sa: Annotated[Literal["page4d", "pi3"] | None, model_option("--time-sa", help="weights of Time-SA")] = None,
    mask: Annotated[
        Literal["on", "off"] | None, model_option(help="whether the published PAGE-4D masks; default on")
    ] = None,
    reference_view: Annotated[
        ReferenceView | None,
        model_option(
            help="the view that is told apart (Depth Anything 3); default: saddle_balanced, the published choice",
            show_default=False,
        ),
    ] = None,
    known_cameras: Annotated[
        bool, model_option("--known-cameras", help="the images' cameras are an input (Depth Anything 3)")
    ] = False,
    option: Annotated[
        list[str] | None,
        model_option("--set", metavar="NAME=VALUE", help="a model option, e.g. global_strategy=memory; repeatable"),
    ] = None,
    seed: Annotated[int, model_option(min=0, help="of weights without a checkpoint")] = 0,
    keypoints: Annotated[bool, model_option("--keypoints", help="Global-SA takes keypoint maps")] = False,
    sparse_attention: Annotated[
        int | None,
        model_option(
            metavar="N",
            help="attention over all images reads one in N patches of the other images (4, 9, 16 ..; published models);"
            " faster, and not exact: needs --tolerance",
            show_default=False,
        ),
    ] = None,
    sparse_layers: Annotated[
        str | None,
        model_option(
            metavar="LIST", help="layers where --sparse-attention holds, e.g. 8-23; default: all", show_default=False
        ),
    ] = None,
    absent_views: Annotated[
        bool, model_option("--absent-views", help="the engines go without the images of a lost camera")
    ] = False,
    fp16: Annotated[bool, precision_option("--fp16", help="float16 weights and tokens")] = False,
    bf16: Annotated[bool, precision_option("--bf16", help="bfloat16 weights and tokens")] = False,
    int8: Annotated[
        bool, precision_option("--int8", help="8-bit linear layers, for ONNX Runtime or OpenVINO on a CPU")
    ] = False,
    static_ranges: Annotated[
        bool,
        precision_option(
            "--static-ranges",
            help="with --int8: activations are rounded to ranges measured on --frames; faster with OpenVINO. Values"
            " more than a quarter beyond these ranges are cut off",
        ),
    ] = False,
    fp8: Annotated[
        bool,
        precision_option(
            "--fp8", help="8-bit floating-point linear layers among float16, for TensorRT on SM89 and newer"
        ),
    ] = False,
    frames: Annotated[
        pathlib.Path | None, precision_option(help="frames to verify on; default: a rendered clip")
    ] = None,
    tolerance: Annotated[
        float | None,
        precision_option(
            help="relative L2 error that a stage may have, above 0, up to 1; default by precision. With"
            " --sparse-attention: that results may have against the exact model"
        ),
    ] = None,
    attention: Annotated[
        AttentionChoice,
        tensorrt_option(
            help="in TensorRT: auto (the plugin where it is there), plugin, native (TensorRT's own fusion)"
        ),
    ] = AttentionChoice.AUTO,
    no_build: Annotated[
        bool, tensorrt_option("--no-build", help="ONNX alone, also where TensorRT is installed")
    ] = False,
    build_only: Annotated[
        pathlib.Path | None,
        tensorrt_option(
            "--build-only",
            metavar="ENGINES",
            help="build the TensorRT plans of an engine folder that is there; needs no torch",
        ),
    ] = None,
    backend: Annotated[
        PlanBuilder,
        tensorrt_option(
            help="what builds plans: tensorrt, rtx (TensorRT-RTX, on any machine), auto (what is installed)"
        ),
    ] = PlanBuilder.AUTO,
    target: Annotated[
        str | None,
        tensorrt_option(
            help="GPU architectures for TensorRT-RTX, e.g. sm_89,sm_120; default: sm_80 (fp8: sm_89) and newer",
            show_default=False,
        ),
    ] = None,
    hardware_compat: Annotated[
        bool, tensorrt_option("--hardware-compat", help="TensorRT plans for every GPU from Ampere on, a little slower")
    ] = False,
    optimization_level: Annotated[
        int | None,
        tensorrt_option(min=0, max=5, help="of TensorRT's builder; default: TensorRT's own", show_default=False),
    ] = None,
    plugin_library: Annotated[
        pathlib.Path | None,
        tensorrt_option(
            help="libpage4d_plugins.so, built from plugins/csrc: travels with the engines, for C++ programs",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        pathlib.Path,
        out_option("engine folder to write", rich_help_panel="Output"),
    ] = pathlib.Path("engines"),
    dry_run: Annotated[bool, output_option("--dry-run", help="print the plan and stop")] = False,
    as_json: Annotated[
        bool, output_option("--json", help="the manifest or plan as one JSON document on stdout")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Export a model as verified engines: one ONNX file per stage, each compared with the PyTorch reference."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        flags = BuildFlags(
            no_build=no_build,
            builder=backend,
            target=target,
            hardware_compat=hardware_compat,
            optimization_level=optimization_level,
            plugin_library=plugin_library,
        )
        if build_only is not None:
            flags.refuse_others(context)
            _build_only(build_only, flags, as_json, quiet)
            return
        if T is None or V is None:
            raise UsageError(
                "an export needs to know how many timesteps and views the engines see",
                got="no --T" if T is None else "no --V",
                hint="--T 4 --V 4",
            )
        require_tolerance(tolerance)
        precision = _precision(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8)
        layout = Layout(T, V, height, width, B)
        options = overrides(option or [])
        if mask is not None:
            options["mask"] = mask == "on"
        if reference_view is not None:
            options["reference_view"] = reference_view
        if known_cameras:
            options["known_cameras"] = True
        if sparse_attention is not None:
            options["sparse_attention"] = sparse_attention
        if sparse_layers is not None:
            if "sparse_attention" not in options:
                raise UsageError("--sparse-layers has no effect alone", got=sparse_layers, hint="--sparse-attention 4")
            options["sparse_layers"] = layers_named(sparse_layers)
        if file is not None:
            _refuse_beside_file(file, pi3, page4d)
            source = ModelSource.of_file(
                given_checkpoint(file, quiet), preset, options, T, seed, registers, time_sa, heads
            )
        else:
            source = ModelSource.choose(
                preset,
                options,
                T,
                seed,
                sources=Sources(
                    pi3=None if pi3 is None else given_checkpoint(pi3, quiet),
                    page4d=None if page4d is None else given_checkpoint(page4d, quiet),
                ),
                registers=registers,
                time_sa=time_sa,
                heads=heads,
            )
        if source.chosen is not None:
            names = ", ".join(source.config.predictions) or "none"
            console.say(f"preset {source.chosen}, as {source.described} was published; heads: {names}", quiet)
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
        if attention is AttentionChoice.NATIVE and (unfused := plan.unfused()):
            console.say(
                f"--attention native: TensorRT does not fuse, and holds an n x n tensor in, {', '.join(unfused)}", quiet
            )
        if dry_run:
            _dry_run(source, plan, as_json, quiet)
            return
        plans, reason = flags.request(precision, attention)
        console.say(reason, quiet or not reason)
        clip = open_clip(frames, layout)
        for warning in () if plans is None else plans.warnings:
            console.say(f"warning: {warning}", quiet)
        for note in () if clip is None else clip.notes:
            console.say(f"note: {note}", quiet)
        request = ExportRequest(
            source=source,
            plan=plan,
            out=out,
            clip=clip,
            tolerance=tolerance,
            plans=plans,
            plugin_library=plugin_library,
        )
        with console.progress(quiet) as progress:
            manifest = request.run(progress)
        _report(manifest, out, as_json, quiet)

    raise typer.Exit(console.run(body))


def _refuse_beside_file(file: pathlib.Path, pi3: pathlib.Path | None, page4d: pathlib.Path | None) -> None:
    flags = {"--pi3": pi3, "--page4d": page4d}
    others = [f"{flag} {path}" for flag, path in flags.items() if path is not None]
    if others:
        raise UsageError(
            "a checkpoint without a flag is exported alone, as the model that it is",
            got=f"{file} and {', '.join(others)}",
            allowed=f"{METAVAR}, or --pi3 and --page4d",
            hint=f"{file} alone; for one network of both, --pi3 FILE --page4d FILE",
        )


def _dry_run(source: ModelSource, plan: ExportPlan, as_json: bool, quiet: bool) -> None:
    from page4d_export.commands.tables import plan_document, print_plan

    for note in source.notes:
        console.say(f"note: {note}", quiet)
    console.write_json(plan_document(plan)) if as_json else print_plan(plan)


def _build_only(engines: pathlib.Path, flags: BuildFlags, as_json: bool, quiet: bool) -> None:
    from page4d_engines.engine_folder import EngineFolder
    from page4d_engines.ort.library import require_onnx

    require_onnx("building plans")
    from page4d_engines.tensorrt.plans import build_into
    from page4d_export.commands.tables import print_plans

    folder = EngineFolder.open(engines)
    request = flags.demanded(folder.manifest.precision, folder.manifest.attention)
    for warning in request.warnings:
        console.say(f"warning: {warning}", quiet)
    with console.progress(quiet) as progress:
        manifest = build_into(folder, request, progress)
    if as_json:
        console.write_json(manifest)
    if not quiet:
        print_plans(manifest)
    console.say(f"engines: {engines}", quiet)


def _report(manifest: Manifest, out: pathlib.Path, as_json: bool, quiet: bool) -> None:
    from page4d_export.commands.tables import print_accuracy, print_plans

    if manifest.loaded is not None:
        console.say(f"{manifest.loaded}\n", quiet)
    if as_json:
        console.write_json(manifest)
    if not quiet:
        print_accuracy(manifest)
        print_plans(manifest)
    console.say(f"licence: {manifest.licence}", quiet or not manifest.licence)
    console.say(f"weights: {manifest.weights}; engines: {out}", quiet)


def _precision(fp16: bool, bf16: bool, int8: bool, fp8: bool) -> Precision:
    flags = {
        "--fp16": (fp16, Precision.FLOAT16),
        "--bf16": (bf16, Precision.BFLOAT16),
        "--int8": (int8, Precision.INT8),
        "--fp8": (fp8, Precision.FP8),
    }
    chosen = {flag: precision for flag, (is_set, precision) in flags.items() if is_set}
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other", allowed="one of them, or none for float32")
    return next(iter(chosen.values()), Precision.FLOAT32)
