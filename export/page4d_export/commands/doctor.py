"""`page4d doctor`: what this machine has, and what that allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from page4d_engines import console
from page4d_engines.cli import Verbose

if TYPE_CHECKING:
    from page4d_engines.doctor import Finding


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="the findings as one JSON document on stdout")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what is installed, what answers, what is missing, and which backends that allows."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_engines.doctor import diagnose

        diagnosis = diagnose()
        if as_json:
            console.write_json(diagnosis)
            return
        for title, findings in (
            ("installed", diagnosis.installed),
            ("machine", diagnosis.machine),
            ("can", diagnosis.can),
        ):
            _print_findings(title, findings)

    raise typer.Exit(console.run(body))


def _print_findings(title: str, findings: list[Finding]) -> None:
    table = console.table(title, [], [], show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            "" if finding.ok else "-", finding.name, finding.said + (f"; {finding.hint}" if finding.hint else "")
        )
    console.table_console().print(table, markup=False)
