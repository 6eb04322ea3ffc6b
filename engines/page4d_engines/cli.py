"""`page4d-run`: an engine folder and a folder of frames in; masks, tokens and a report out."""

from __future__ import annotations

import contextlib
import enum
import pathlib
import sys
import time
from typing import Annotated, TypeVar

import typer

from page4d.errors import ExitCode, UsageError
from page4d_engines import console

Choice = TypeVar("Choice", bound=enum.Enum)


def run(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder, written by page4d-export")],
    frames: Annotated[pathlib.Path, typer.Argument(help="folder of <camera>/<frame>.png or .jpg, or one that holds such a folder `frames`")],
    out: Annotated[pathlib.Path, typer.Option("-o", "--out", help="folder to write; replaced where it holds an earlier run")] = pathlib.Path("out"),
    stride: Annotated[int | None, typer.Option(help="frames from one window's start to the next's; default T, windows without overlap")] = None,
    fit: Annotated[str | None, typer.Option(help="what to do with another aspect ratio than the engines': stretch, crop or pad")] = None,
    masks: Annotated[pathlib.Path | None, typer.Option(help="external dynamic masks, <camera>/<frame>.png; default: `masks` beside the frames")] = None,
    cameras: Annotated[pathlib.Path | None, typer.Option(help="calibration; default: cameras.json beside the frames")] = None,
    keypoints: Annotated[pathlib.Path | None, typer.Option(help="keypoint maps, <camera>/<frame>.png; default: `keypoints` beside the frames")] = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, cuda or tensorrt; all but auto are demands")] = "auto",
    threads: Annotated[int | None, typer.Option(help="processor threads; default: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the summary as one JSON document on stdout")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False,
) -> None:
    """Run engines over a clip, window by window.

    Writes <window>.safetensors (kept layers, mask), masks/ (overlays), summary.json and report.html.
    """
    began = time.perf_counter() - console.process_age()
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.clip_run import ClipRun  # late: --help need not wait for the runtime
        from page4d_engines.fit import FitMode
        from page4d_engines.frames import FrameFolder
        from page4d_engines.ort_engine import share_thread_pool
        from page4d_engines.pipeline import Backend
        from page4d_engines.report import SEEDED_NOTE

        mode = None if fit is None else _choice(FitMode, "--fit", fit)
        if threads is not None and threads < 1:
            raise UsageError("--threads is out of range", got=threads, allowed="1 or more")
        folder = FrameFolder.open(frames, masks, cameras, keypoints)
        share_thread_pool(threads)
        job = ClipRun.prepare(engines, folder, out, stride, mode, _choice(Backend, "--backend", backend), threads, began)
        with console.progress(quiet) as progress:
            summary = job.run(progress)
        if as_json:
            console.write_json(summary)
        if summary.seeded:
            console.say(f"note: {SEEDED_NOTE} ({summary.weights})", quiet)
        for warning in summary.warnings:
            console.say(f"note: {warning}", quiet)
        console.say(f"{len(summary.windows)} windows in {summary.wall_seconds:.1f} s, backend {summary.backend}", quiet)
        console.say(f"report:  {out / 'report.html'}\nmasks:   {out / 'masks'}\ntokens:  {out / '*.safetensors'}", quiet)

    raise typer.Exit(console.run(body))


def _choice(kind: type[Choice], flag: str, word: str) -> Choice:
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"{flag} has no such value", got=word, allowed=", ".join(str(choice) for choice in kind)) from None


def command(function: object) -> typer.Typer:
    """A typer application of one command, without its shell-completion flags."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
    app.command()(function)  # type: ignore[type-var]
    return app


def main() -> None:
    """Entry point of `page4d-run`."""
    start(command(run))


def start(app: typer.Typer) -> None:
    """Run an application as this process's command, Ctrl-C included."""
    with contextlib.suppress(BrokenPipeError):
        try:
            app()
        except KeyboardInterrupt:  # before a command's own body has begun
            sys.exit(ExitCode.INTERRUPTED)
