"""`page4d inspect` and `page4d weights`: what an engine folder, and a checkpoint, is."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from page4d_engines import console
from page4d_engines.cli import Verbose
from page4d_export.commands.given_checkpoint import KINDS, METAVAR, given_checkpoint


def inspect_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder")],
    as_json: Annotated[bool, typer.Option("--json", help="the manifest as one JSON document on stdout")] = False,
    verbose: Verbose = False,
) -> None:
    """Check an engine folder and print what it is: model, layout, stages, measured accuracy."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_engines.engine_folder import EngineFolder
        from page4d_export.commands.tables import print_accuracy, print_origin, print_plans

        manifest = EngineFolder.open(engines).manifest
        if as_json:
            console.write_json(manifest)
        else:
            print_accuracy(manifest, detailed=True)
            print_plans(manifest, stderr=False)
            print_origin(manifest)

    raise typer.Exit(console.run(body))


def weights_command(
    file: Annotated[
        pathlib.Path,
        typer.Argument(metavar=METAVAR, help=f"a checkpoint of Pi3, Pi3X, VGGT, PAGE-4D or Depth Anything 3: {KINDS}"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="as one JSON document on stdout")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what a checkpoint is, without loading it: model, generation, layers, heads, parameters, licence."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_export.commands.tables import print_checkpoint

        checkpoint = given_checkpoint(file)
        console.write_json(checkpoint.document()) if as_json else print_checkpoint(checkpoint)

    raise typer.Exit(console.run(body))
