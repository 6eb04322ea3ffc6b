"""`page4d export-triton`: an engine folder as a model repository of Triton Inference Server."""

from __future__ import annotations

import pathlib
from typing import Annotated, Literal

import typer

from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose, out_option


def export_triton_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder")],
    out: Annotated[pathlib.Path, out_option("model repository to write: a new or empty folder")],
    backend: Annotated[
        Literal["auto", "tensorrt", "onnxruntime"],
        typer.Option(help="what the server runs the stages with; auto: tensorrt. onnxruntime is for small sizes"),
    ] = "auto",
    memory_input: Annotated[
        bool,
        typer.Option("--memory-input", help="requests give `memory`, that of the window before, and get `memory_out`"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="what was written as one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a model repository for NVIDIA Triton Inference Server: a model per stage, and their ensemble `page4d`."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_engines.ort.library import require_onnx

        require_onnx("a repository of models")
        from page4d_engines.engine_folder import EngineFolder
        from page4d_engines.triton_server.repository import Backend, Repository

        written = Repository.of(EngineFolder.open(engines), Backend(backend), memory_input).write(out)
        if as_json:
            console.write_json(written)
        for model in written.models:
            console.say(f"{model.name:<28} {model.platform}", quiet)
        for side, specs in (("inputs", written.inputs), ("outputs", written.outputs)):
            console.say(
                f"{side + ':':<9}{', '.join(f'{spec.name} {spec.dtype} {list(spec.shape)}' for spec in specs)}", quiet
            )
        for note in written.notes:
            console.say(f"note: {note}", quiet)
        console.say(written.command, quiet)

    raise typer.Exit(console.run(body))
