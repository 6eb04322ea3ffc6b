"""`page4d eval`: a finished run in the task's own numbers."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Annotated

import typer

from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose
from page4d_engines.commands.convert import Frames, Run


def evaluate_command(
    run: Run,
    truth: Annotated[
        pathlib.Path | None,
        typer.Option(help="clip with cameras.json, depth/ and masks/, or some of them", metavar="CLIP"),
    ] = None,
    against: Annotated[
        pathlib.Path | None,
        typer.Option(help="a second run: scored beside the first, or without --truth its reference", metavar="OUT2"),
    ] = None,
    frames: Frames = None,
    out: Annotated[
        pathlib.Path | None, typer.Option("-o", "--out", help="file for the JSON document", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the scores as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score a finished run: poses, depth, masks and points against the truth of a clip.

    Of two runs (OUT, --against OUT2) both are scored, with their difference, OUT - OUT2; without --truth, OUT is scored
    as if OUT2 were the truth. What cannot be scored is left out, and a line says why. docs/results/scores.md defines
    every score.
    """
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d.files import write_atomically
        from page4d.system.plain_text import json_document
        from page4d_engines.results.scores.evaluation import evaluate  # late: --help need not wait for numpy
        from page4d_engines.results.scores.table import reasons, table

        if out is not None:
            _refuse_file(out, {"the run": run, "the second run": against, "the truth": truth})
        with console.progress(quiet) as progress:
            evaluation = evaluate(run, truth, against, frames, progress)
        if out is not None:
            write_atomically(out, json_document(evaluation))
        if as_json:
            console.write_json(evaluation)
        elif not quiet:
            console.table_console().print(table(evaluation))
        for reason in reasons(evaluation):
            console.say(f"note: {reason}", quiet)

    raise typer.Exit(console.run(body))


def _refuse_file(out: pathlib.Path, inputs: Mapping[str, pathlib.Path | None]) -> None:
    """Raise unless `-o` names a file in an existing folder, outside what the scores are computed from.

    Args:
        out: as on the command line.
        inputs: folders that are read, by what they are; None: there is none.

    Raises:
        UsageError: it names something else.
    """
    from page4d.errors import UsageError

    if out.is_dir() or not out.parent.is_dir():
        raise UsageError("-o names no file that can be written", got=out, allowed="a file in an existing folder")
    for name, folder in inputs.items():
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"-o lies in {name}, which this reads", got=f"{out}, in {folder}", allowed="a file outside"
            )
