"""`page4d verify` and `page4d doctor`: whether an engine folder, and a machine, are as they should be."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from page4d.errors import UsageError
from page4d_engines import console
from page4d_engines.cli import Verbose

if TYPE_CHECKING:
    from page4d_engines.self_check import Row, SelfCheck


def verify_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder")],
    backend: Annotated[
        str, typer.Option(help="auto, onnxruntime, cuda or tensorrt; all but auto are demands")
    ] = "auto",
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect", help="also hold every stage by itself against ONNX Runtime: names the one that is wrong"
        ),
    ] = False,
    threads: Annotated[int | None, typer.Option(help="processor threads; default: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="what was found as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False,
) -> None:
    """Check engines on this machine: the golden clip of their folder, every stage against the reference's values. Exit
    code 3 where one departs."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.backend import Backend
        from page4d_engines.engine_folder import EngineFolder
        from page4d_engines.ort.thread_pool import ThreadPool
        from page4d_engines.pipeline import Pipeline
        from page4d_engines.self_check import self_check

        if backend not in {str(known) for known in Backend}:
            raise UsageError("--backend has no such value", got=backend, allowed=", ".join(map(str, Backend)))
        folder = EngineFolder.open(engines)
        pipeline = Pipeline.of(folder, Backend(backend), ThreadPool.of(threads))
        with console.progress(quiet) as progress:
            found = self_check(folder, pipeline, bisect, progress)
        if as_json:
            console.write_json(found)
        elif not quiet:
            _print(found)
        found.require()
        console.say(f"{engines}: all stages as they should be, on {found.described}", quiet)

    raise typer.Exit(console.run(body))


def _print(found: SelfCheck) -> None:
    def add(rows: list[Row], against: str) -> None:
        for row in rows:
            accuracy = row.accuracy
            mark = "" if row.passed else "departs"
            table.add_row(
                row.stage,
                row.output,
                against,
                f"{accuracy.relative_l2:.1e}",
                f"{row.allowed:.0e}",
                str(accuracy.nans),
                mark,
            )

    title = f"{found.described}, {found.seconds:.1f} s"
    table = console.table(title, ["stage", "output", "against"], ["relative L2", "allowed", "NaN", ""])
    add(found.chain, "reference, chain")
    add(found.alone, "ONNX Runtime, alone")
    console.table_console().print(table)
