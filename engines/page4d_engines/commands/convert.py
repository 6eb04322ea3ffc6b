"""`page4d convert`: the points and cameras of a finished run, in the formats of other programs."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from page4d.system.plain_text import counted
from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose, out_option
from page4d_engines.commands import cloud_flags as flags
from page4d_engines.options import Format

Run = Annotated[pathlib.Path, typer.Argument(help="output folder of page4d-run, of one clip", metavar="OUT")]
Frames = Annotated[
    pathlib.Path | None, typer.Option(help="where the run's frames lie; default: where they were when it ran")
]


def convert_command(
    run: Run,
    formats: flags.Formats = None,
    shared_camera: flags.SharedCamera = None,
    frames: Frames = None,
    out: Annotated[
        pathlib.Path | None, out_option("folder to write; replaced where it holds an earlier conversion; default: OUT")
    ] = None,
    points_from: flags.PointsFrom = None,
    min_confidence: flags.MinConfidence = None,
    confidence_percentile: flags.ConfidencePercentile = None,
    edge_depth: flags.EdgeDepth = None,
    edge_normal: flags.EdgeNormal = None,
    static_only: flags.StaticOnly = None,
    max_points: flags.MaxPoints = None,
    voxel: flags.Voxel = None,
    metric_from: flags.MetricFrom = None,
    known_distance: flags.KnownDistance = None,
    as_json: Annotated[bool, typer.Option("--json", help="the summary as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a finished run in more formats; the engines are not run again.

    Without -o the files are added to OUT, and its summary lists them. What is not said about points stays as the run
    had it; where something is, OUT's other formats are written anew. With several windows that have worlds of their
    own, each window's folder has its files.
    """
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.results.finished.finished_run import FinishedRun  # late: --help need not wait for numpy
        from page4d_engines.results.formats.conversion import Conversion
        from page4d_engines.results.formats.format_choice import formats_named
        from page4d_engines.results.world.metres import MetricSource

        opened = FinishedRun.open(run, frames)
        options = opened.options.with_flags(
            points_from=points_from,
            min_confidence=min_confidence,
            confidence_percentile=confidence_percentile,
            edge_depth=edge_depth,
            edge_normal=edge_normal,
            static_only=static_only,
            max_points=max_points,
            voxel=voxel,
        )
        opened = opened.with_options(options)
        metric = MetricSource.of(metric_from, known_distance)
        if metric is not None:
            opened = metric.applied(opened)
        kinds = () if formats is None else formats_named(formats)
        conversion = Conversion.prepare(opened, kinds, out, shared_camera, changed=metric is not None)
        with console.progress(quiet) as progress:
            summary = conversion.write(progress)
        if as_json:
            console.write_json(summary)
        for warning in summary.warnings:
            if warning not in opened.summary.warnings:
                console.say(f"note: {warning}", quiet)
        names = ", ".join(conversion.formats)
        has_cloud = Format.PLY in conversion.formats and summary.points is not None  # others may have fewer points
        points = f", {counted(summary.points or 0, 'point')}" if has_cloud else ""
        console.say(f"{names}{points}: {conversion.out}", quiet)

    raise typer.Exit(console.run(body))
