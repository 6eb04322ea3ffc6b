"""`page4d verify`: whether an engine folder computes on this machine what the reference does."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose
from page4d_engines.options import CPU, Backend

if TYPE_CHECKING:
    from page4d_engines.self_check import Row, SelfCheck


def verify_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder")],
    backend: Annotated[Backend, typer.Option(help="what runs the engines; all but auto are demands")] = Backend.AUTO,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect", help="also compare every stage by itself with ONNX Runtime: names the one that is wrong"
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="of --backend openvino, as OpenVINO names it: CPU, or GPU for Intel's")
    ] = CPU,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the figures as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Check engines on this machine, on their golden clip. Exit code 3 where a stage departs from the reference."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.engine_folder import EngineFolder
        from page4d_engines.ort.thread_pool import ThreadPool
        from page4d_engines.pipeline import Pipeline
        from page4d_engines.self_check import self_check

        folder = EngineFolder.open(engines)
        pipeline = Pipeline.of(folder, backend, ThreadPool.of(threads), device=device)
        with console.progress(quiet) as progress:
            check = self_check(folder, pipeline, bisect, progress)
        if as_json:
            console.write_json(check)
        elif not quiet:
            _print(check)
        check.require()
        console.say(f"{engines}: all stages as they should be, on {check.described}", quiet)

    raise typer.Exit(console.run(body))


def _print(check: SelfCheck) -> None:
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

    title = f"{check.described}, {check.seconds:.1f} s"
    table = console.table(title, ["stage", "output", "against"], ["relative L2", "allowed", "NaN", ""])
    add(check.chain, "reference, chain")
    add(check.alone, "ONNX Runtime, alone")
    console.table_console().print(table)
