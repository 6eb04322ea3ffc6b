"""`page4d view`: a finished run on a page in a browser, as pictures of it, or as a recording for rerun."""

from __future__ import annotations

import os
import pathlib
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from page4d.system.plain_text import counted
from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose, folder_to_write
from page4d_engines.commands import cloud_flags as flags
from page4d_engines.commands.convert import Frames, Run

if TYPE_CHECKING:
    from page4d_engines.results.finished.finished_run import FinishedRun
    from page4d_engines.results.viewer.shown_scene import ShownScene

Screenshot = Annotated[
    pathlib.Path | None,
    typer.Option(
        parser=folder_to_write,
        metavar="FOLDER",
        help="write PNG files of an overview and of what each camera sees into a new folder, and end; needs Chromium",
    ),
]
Recording = Annotated[
    pathlib.Path | None,
    typer.Option("--rerun", metavar="FILE.rrd", help="write a recording for rerun, and end"),
]
MostDrawn = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel="Points",
        help="the most points that are drawn, of all windows, chosen evenly",
    ),
]


def view_command(
    run: Run,
    frames: Frames = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0: whoever reaches this machine may look")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the page")] = 8080,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="open the page where there is a desktop")
    ] = True,
    screenshot: Screenshot = None,
    rerun: Recording = None,
    points_from: flags.PointsFrom = None,
    min_confidence: flags.MinConfidence = None,
    confidence_percentile: flags.ConfidencePercentile = None,
    edge_depth: flags.EdgeDepth = None,
    edge_normal: flags.EdgeNormal = None,
    static_only: flags.StaticOnly = None,
    max_points: MostDrawn = 1_000_000,
    voxel: flags.Voxel = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Look at a finished run: points, cameras with their photos, and timesteps, on a page in a browser.

    Serves the page until Ctrl-C. What is not said about points stays as the run had it.
    """
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d.files import refuse_foreign
        from page4d_engines.results.finished.finished_run import FinishedRun  # late: --help need not wait for numpy
        from page4d_engines.results.viewer.rerun_file import refuse_rerun_file, require_rerun
        from page4d_engines.results.viewer.screenshot import require_screenshots
        from page4d_engines.results.viewer.server import refuse_busy, require_viser

        if rerun is not None:
            require_rerun()
            refuse_rerun_file(rerun, run)
        if screenshot is not None:
            require_screenshots()
            refuse_foreign(screenshot, inputs={"the run": run})
        if rerun is None and screenshot is None:
            require_viser()
            refuse_busy(host, port)
        opened = FinishedRun.open(run, frames)
        options = opened.options.with_flags(
            points_from=points_from,
            min_confidence=min_confidence,
            confidence_percentile=confidence_percentile,
            edge_depth=edge_depth,
            edge_normal=edge_normal,
            static_only=static_only,
            voxel=voxel,
        )
        opened = opened.with_options(options)
        if rerun is not None:
            _record(opened, rerun, max_points, quiet)
        if screenshot is not None:
            _photograph(_read(opened, max_points, quiet), screenshot, quiet)
        if rerun is None and screenshot is None:
            _serve(_read(opened, max_points, quiet), opened.path.name, host, port, browser, quiet)

    raise typer.Exit(console.run(body))


def _read(run: FinishedRun, max_points: int, quiet: bool) -> list[ShownScene]:
    from page4d_engines.results.viewer.shown_scene import read_scenes

    with console.progress(quiet) as progress:
        scenes = read_scenes(run, max_points, progress.part(0, 1, _images(run), "reading ").step)
    drawn, total = sum(len(scene.points) for scene in scenes), sum(scene.total for scene in scenes)
    if drawn < total:
        console.say(f"{drawn:,} of {total:,} points are drawn; --max-points draws more", quiet)
    return scenes


def _record(run: FinishedRun, path: pathlib.Path, max_points: int, quiet: bool) -> None:
    from page4d_engines.results.viewer.rerun_file import write_rerun

    with console.progress(quiet) as progress:
        write_rerun(path, run.scenes(), max_points, progress.part(0, 1, _images(run), "recording ").step)
    console.say(f"recording: {path}", quiet)


def _photograph(scenes: list[ShownScene], folder: pathlib.Path, quiet: bool) -> None:
    from page4d_engines.results.viewer.screenshot import write_screenshots

    pictures = sum(1 + len(scene.posed) for scene in scenes)
    with console.progress(quiet) as progress:
        count = write_screenshots(folder, scenes, progress.part(0, 1, pictures, "drawing ").step)
    console.say(f"{counted(count, 'picture')}: {folder}", quiet)


def _serve(scenes: list[ShownScene], title: str, host: str, port: int, browser: bool, quiet: bool) -> None:
    """Until Ctrl-C, which is how it is meant to end: the exit code is 0 then."""
    from page4d_engines.results.viewer.page import Page
    from page4d_engines.results.viewer.server import address_of, serving

    address = address_of(host, port)
    with serving(host, port) as server:
        page = Page(server, scenes, title)
        try:
            console.say(f"{address}  (Ctrl-C ends it)", quiet)
            if browser and _has_desktop():
                import webbrowser

                webbrowser.open(address)
            threading.Event().wait()
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:  # SIGTERM, SIGHUP: somebody else ends it
                raise
        finally:
            page.close()


def _has_desktop() -> bool:
    """Whether a browser would have a window: where there is none, a text browser would take the terminal."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _images(run: FinishedRun) -> int:
    """Of all scenes; those that windows of one world share are counted once."""
    return sum(scene.count for scene in run.scenes())
