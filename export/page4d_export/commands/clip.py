"""`page4d clip`: a rendered clip to try the engines on."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from page4d.files import NEW_FOLDER, refuse_foreign, staged
from page4d.system.plain_text import counted
from page4d_engines import console
from page4d_engines.cli import Verbose, out_option


def clip_command(
    out: Annotated[pathlib.Path, out_option("folder to write: frames/, masks/, depth/, cameras.json")],
    T: Annotated[int, typer.Option("--T", help="timesteps")] = 8,
    V: Annotated[int, typer.Option("--V", help="cameras")] = 4,
    width: Annotated[int, typer.Option(help="pixels")] = 320,
    height: Annotated[int, typer.Option(help="pixels")] = 240,
    seed: Annotated[int, typer.Option(help="of the scene")] = 0,
    verbose: Verbose = False,
) -> None:
    """Render a moving scene seen by calibrated cameras: frames, true dynamic masks and depth, cameras."""
    console.set_verbosity(verbose)

    def body() -> None:
        from page4d_export.sample_scene.clip import render, save

        refuse_foreign(out)
        with staged(out, NEW_FOLDER) as folder:
            save(render(T, V, width, height, seed), folder)
        console.say(f"{counted(T, 'frame')} of {counted(V, 'camera')}: {out}")

    raise typer.Exit(console.run(body))
