"""`page4d-run`: an engine folder and a folder of frames in; masks, tokens and a report out."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from page4d.errors import ExitCode, Page4DError, UsageError
from page4d.system import process
from page4d.system.plain_text import counted, listed
from page4d_engines import console
from page4d_engines.commands import cloud_flags as flags
from page4d_engines.options import Backend, FitMode, Format

if TYPE_CHECKING:
    from page4d_engines.results.batch.batch import Batch
    from page4d_engines.results.batch.batch_summary import FolderResult
    from page4d_engines.results.summary import Summary

Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="log everything; the traceback of a fault")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="print errors only")]


def _print_version(asked: bool) -> None:
    if asked:
        from page4d import __version__

        typer.echo(f"page4d {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print page4d's version and stop")
]


def folder_to_write(text: str | pathlib.Path) -> pathlib.Path:
    """What `-o` names: a variable of a script that is empty must not mean the working directory."""
    if not str(text).strip():
        raise typer.BadParameter("a folder's name is wanted, and it is empty")
    return pathlib.Path(text)


def out_option(help: str, **settings: Any) -> Any:
    """`-o FOLDER`, what it is for in `help`; `settings` are typer's."""
    return typer.Option("-o", "--out", parser=folder_to_write, metavar="FOLDER", help=help, **settings)


def run(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder, written by page4d-export")],
    frames: Annotated[
        list[pathlib.Path],
        typer.Argument(
            help=(
                "folder of <camera>/<frame>.png or .jpg, or of a video per camera,"
                " or one that holds such a folder `frames`; or a ROS 2 bag; of several each is run into FOLDER/<name>"
            ),
            metavar="FRAMES...",
        ),
    ],
    out: Annotated[pathlib.Path, out_option("folder to write; replaced where it holds an earlier run")] = pathlib.Path(
        "out"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="keep results that are whole and of the same engines, options and frames")
    ] = False,
    stride: Annotated[
        int | None,
        typer.Option(help="frames from one window's start to the next's; default T, windows without overlap"),
    ] = None,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="bring overlapping windows into the world of the first one; default stride then: T less a quarter",
        ),
    ] = False,
    close_loop: Annotated[
        bool,
        typer.Option("--close-loop", help="the clip's end sees its begin again: close the ring of aligned windows"),
    ] = False,
    fit: Annotated[
        FitMode | None,
        typer.Option(
            help=(
                "what to do with another aspect ratio than the engines'; default: published for VGGT, PAGE-4D and Depth"
                " Anything 3, else an error"
            )
        ),
    ] = None,
    masks: Annotated[
        pathlib.Path | None,
        typer.Option(help="external dynamic masks, <camera>/<frame>.png; default: `masks` beside the frames"),
    ] = None,
    cameras: Annotated[
        pathlib.Path | None, typer.Option(help="calibration; default: cameras.json beside the frames")
    ] = None,
    keypoints: Annotated[
        pathlib.Path | None,
        typer.Option(help="keypoint maps, <camera>/<frame>.png; default: `keypoints` beside the frames"),
    ] = None,
    topics: Annotated[
        str | None,
        typer.Option(help="topics of a bag that are the cameras, in order, as /a,/b; default: all topics of images"),
    ] = None,
    backend: Annotated[Backend, typer.Option(help="what runs the engines; all but auto are demands")] = Backend.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all")] = None,
    points_from: flags.PointsFrom = None,
    min_confidence: flags.MinConfidence = None,
    confidence_percentile: flags.ConfidencePercentile = None,
    edge_depth: flags.EdgeDepth = None,
    edge_normal: flags.EdgeNormal = None,
    static_only: flags.StaticOnly = None,
    max_points: flags.MaxPoints = None,
    voxel: flags.Voxel = None,
    formats: flags.Formats = None,
    shared_camera: flags.SharedCamera = None,
    metric_from: flags.MetricFrom = None,
    known_distance: flags.KnownDistance = None,
    as_json: Annotated[bool, typer.Option("--json", help="the summary as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Run engines over a clip, window by window.

    Writes <window>.safetensors (all results), masks/ (overlays), summary.json and report.html; points.ply, cameras.json
    and depth/ as far as the model's heads give them; --formats writes files of other programs. Where the engines see
    one timestep or one view, FRAMES may be a folder of photos; where they see one view, a video. A bag's topics of
    images are its cameras.

    Of several FRAMES each is run by itself, with engines that are loaded once; report.html lists them. One that fails
    leaves the others alone; the exit code is 1 then. With --resume an interrupted command goes on.
    """
    clock = console.process_clock()
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
        from page4d_engines.engine_folder import EngineFolder
        from page4d_engines.ort.thread_pool import ThreadPool
        from page4d_engines.results.batch.batch import Batch
        from page4d_engines.results.clip_run import RunOptions, run_clip  # late: --help need not wait for the runtime
        from page4d_engines.results.formats.format_choice import formats_named
        from page4d_engines.results.scene.cloud_options import CloudOptions
        from page4d_engines.results.world.metres import MetricSource

        if len(frames) > 1:
            refuse_of_one_clip(masks=masks, keypoints=keypoints)
        opened = EngineFolder.open(engines)
        pool = ThreadPool.of(threads, shared=True)
        cloud = CloudOptions().with_flags(
            points_from=points_from,
            min_confidence=min_confidence,
            confidence_percentile=confidence_percentile,
            edge_depth=edge_depth,
            edge_normal=edge_normal,
            static_only=static_only,
            max_points=max_points,
            voxel=voxel,
        )
        options = RunOptions(
            stride=stride,
            fit=fit,
            backend=backend,
            pool=pool,
            clock=clock,
            formats=(Format.PLY,) if formats is None else formats_named(formats),
            shared_camera=bool(shared_camera),
            align=align,
            close_loop=close_loop,
            metric=MetricSource.of(metric_from, known_distance),
            **{name: getattr(cloud, name) for name in cloud.__struct_fields__},
        )
        if len(frames) > 1:
            run_batch(Batch.prepare(opened, frames, out, options, cameras, resume, names_of(topics)), as_json, quiet)
            return
        loose = UngroupedImages.of(opened.manifest.layout)
        gaps = opened.manifest.takes_present
        folder = FrameFolder.open(frames[0], masks, cameras, keypoints, loose, names_of(topics), gaps)
        with console.progress(quiet) as progress:
            summary = run_clip(opened, folder, out, options, resume, progress)
        if as_json:
            console.write_json(summary)
        say_summary(summary, out, quiet)

    raise typer.Exit(console.run(body))


def names_of(text: str | None) -> list[str] | None:
    """Names that an option lists, with commas between them; None where it is not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def refuse_of_one_clip(**options: pathlib.Path | None) -> None:
    """Raise where an option names what belongs to a single clip.

    Raises:
        UsageError: it does, though there are several clips.
    """
    for name, path in options.items():
        if path is not None:
            raise UsageError(
                f"--{name} is for one folder of frames, and there are several",
                got=path,
                allowed=f"a folder `{name}` beside each folder of frames",
            )


def run_batch(batch: Batch, as_json: bool, quiet: bool) -> None:
    """Run a batch, with a line on stderr for each folder.

    Raises:
        Page4DError: folders failed; the others are done.
    """
    from page4d_engines.results.batch.batch import in_words
    from page4d_engines.results.batch.batch_summary import FolderState
    from page4d_engines.results.summary import REPORT

    def tell(result: FolderResult) -> None:
        console.say(in_words(result), quiet and result.state is not FolderState.FAILED)

    if batch.left_out:
        left_out = listed([str(path) for path in batch.left_out], 4)
        console.say(f"note: neither folders nor videos, and left out: {left_out}", quiet)
    with console.progress(quiet) as progress:
        summary = batch.run(progress, tell)
    if as_json:
        console.write_json(summary)
    console.say(f"report:  {batch.out / REPORT}", quiet)
    if failed := [folder.name for folder in summary.of_state(FolderState.FAILED)]:
        raise Page4DError(
            f"{len(failed)} of {counted(len(batch.names), 'folder')} failed",
            got=listed(failed, 4),
            hint="mend them, then the same command with --resume",
        )


def say_summary(summary: Summary, out: pathlib.Path, quiet: bool) -> None:
    """What a run did and where its results are, on stderr."""
    from page4d_engines.results.report import seeded_note

    if summary.seeded:
        console.say(f"note: {seeded_note(summary)} ({summary.weights})", quiet)
    for warning in summary.warnings:
        console.say(f"note: {warning}", quiet)
    for line in world_lines(summary):
        console.say(line, quiet)
    windows = counted(len(summary.windows), "window")
    holes = f" ({summary.windows_with_holes} with absent images)" if summary.windows_with_holes else ""
    console.say(f"{windows}{holes} in {summary.wall_seconds:.1f} s, backend {summary.backend}", quiet)
    for what, path in places(summary, out):
        console.say(f"{what + ':':<9}{path}", quiet)


def world_lines(summary: Summary) -> Iterator[str]:
    """How the results came into one world, and to metres."""
    if summary.alignment is not None:
        yield f"aligned: {summary.alignment.in_words}"
        if summary.alignment.loop_in_words is not None:
            yield f"loop:    {summary.alignment.loop_in_words}"
    if summary.metric is not None:
        yield f"metres:  {summary.metric.in_words}"


def places(summary: Summary, out: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """What a run wrote, and where."""
    yield "report", out / "report.html"
    if summary.has_mask:
        yield "masks", out / "masks"
    for window in [window.predictions for window in summary.windows if window.predictions is not None][:1]:
        depths = out / "*" if len(summary.windows) > 1 else out
        place = depths if summary.alignment is None else out
        files = (("points", window.cloud, place / "points.ply"), ("cameras", window.cameras, place / "cameras.json"))
        for what, file, path in (*files, ("depth", window.depth, depths / "depth")):
            if file:
                yield what, path
    own_worlds = len(summary.windows) > 1 and summary.alignment is None  # then each window has a folder of its files
    entries = (pathlib.PurePosixPath(file).parts[own_worlds] for file in summary.format_files)
    for entry in dict.fromkeys(entries):
        if entry != "points.ply":  # nerfstudio's, too
            yield "format", (out / "*" if own_worlds else out) / entry
    yield "results", out / "*.safetensors"


def command(function: object) -> typer.Typer:
    """A typer application of one command, without its shell-completion flags."""
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.command()(function)  # type: ignore[type-var]
    return app


def main() -> None:
    """Entry point of `page4d-run`."""
    start(command(run))


def start(app: typer.Typer) -> None:
    """Run an application as this process's command; the process ends with its exit code."""
    process.begin()
    code: object = None

    def call() -> None:
        nonlocal code
        try:
            with console.stdout():
                code = app(standalone_mode=False)
        except SystemExit:  # of rich, which --help is printed with
            raise BrokenPipeError from None
        except Exception as error:  # of typer's own library, which it does not export: what was typed is wrong
            if not hasattr(error, "format_message"):
                raise
            code = ExitCode.USAGE
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
                return
            name = getattr(getattr(error, "ctx", None), "command_path", None) or pathlib.Path(sys.argv[0]).name
            console.say(f"page4d: {error.format_message()}\n  try:     {name} --help")

    # a second time, around a command's own body: for --help, and for errors before it
    ended = console.worded(call)
    code = code if ended == ExitCode.OK else ended
    console.flush_streams()
    sys.exit(code if isinstance(code, int) else 0)
