"""`page4d plugins`: what the kernel pack holds, and how it is built."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Annotated

import typer

from page4d.errors import UsageError
from page4d.files import refuse_foreign, staged, write_atomically
from page4d_engines import console
from page4d_plugins.pack import SHIPPED, Pack, targets, tile_chip

app = typer.Typer(no_args_is_help=True, help="The attention kernels for NVIDIA GPUs: what the pack holds, and how it is built.")


@app.command("build")
def build_command(
    out: Annotated[
        pathlib.Path | None, typer.Option("-o", "--out", help="file to write; default: the pack of the installed package", show_default=False)
    ] = None,
    chip: Annotated[list[str] | None, typer.Option(help=f"{', '.join(targets())}; repeatable; default: all", show_default=False)] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="processes side by side")] = os.cpu_count() or 1,
    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False,
) -> None:
    """Compile every kernel for every chip, on any machine: no GPU, no driver. Equal sources give equal bytes."""

    def body() -> None:
        from page4d_plugins import compiler

        if unknown := [name for name in chip or [] if name not in targets()]:
            raise UsageError("there are no kernels for this chip", got=", ".join(unknown), allowed=", ".join(targets()))
        if chip and out is None:
            raise UsageError("a pack of some chips cannot take the place of the package's own", got="--chip without -o", hint="-o FILE")
        if jobs < 1:
            raise UsageError("--jobs is 1 or more", got=jobs)
        path = SHIPPED if out is None else out
        if not path.absolute().parent.is_dir():
            raise UsageError("-o lies in a folder that does not exist", got=path, hint=f"mkdir -p {path.absolute().parent}")
        beyond = compiler.beyond_compiler()
        wanted = compiler.all_targets([name for name in chip or targets() if name not in beyond])
        if not wanted:
            raise UsageError("the installed Triton cannot compile for this chip", got=", ".join(chip or []), hint="a newer Triton, or ptx: drivers compile it")
        started, count = time.monotonic(), 0

        def done(target: compiler.Target) -> None:
            nonlocal count
            count += 1
            progress(f"{target.chip} {target.kernel} {target.dtype.value}", count / len(wanted))

        with console.progress(quiet) as progress:
            pack = compiler.build(wanted, jobs, done)
        spilled = [kernel.entry.path for kernel in pack.kernels.values() if kernel.entry.spills]
        write_atomically(path, pack.content())
        console.say(f"{len(wanted)} kernels in {time.monotonic() - started:.0f} s, {path.stat().st_size / 1e3:.0f} kB: {path}", quiet)
        for name in beyond:
            console.say(f"{name}: not known to Triton {pack.header.triton}; drivers compile the PTX for it", quiet)
        if spilled:
            console.say(f"registers spilled: {', '.join(spilled)}")

    raise typer.Exit(console.run(body))


@app.command("list")
def list_command(
    pack: Annotated[pathlib.Path, typer.Argument(help="a pack; default: the installed package's own", show_default=False)] = SHIPPED,
    as_json: Annotated[bool, typer.Option("--json", help="every kernel's record as one JSON document on stdout")] = False,
) -> None:
    """Say what a pack holds: kernels by chip, their tiles, registers, shared memory."""

    def body() -> None:
        found = Pack.read(pack)
        entries = sorted((kernel.entry for kernel in found.kernels.values()), key=lambda entry: (tile_chip(entry.chip), entry.path))
        if as_json:
            console.write_json({"header": found.header, "kernels": entries})
            return
        from rich.table import Table

        table = Table(title=f"{pack.name}: Triton {found.header.triton}, ptxas {found.header.ptxas}", title_justify="left")
        for column in ("chip", "kernel", "type", "queries x keys", "warps", "stages", "K, V by", "registers", "spilled B", "shared B"):
            table.add_column(column, justify="left" if column in ("chip", "kernel", "type") else "right")
        for entry in entries:
            tile = entry.tile
            cut = [f"{tile.queries} x {tile.keys}", str(tile.warps), str(tile.stages), "descriptor" if tile.descriptors else "pointer"]
            cells = cut if entry.kernel.startswith("attention") else ["", "", "", ""]
            used = [str(entry.registers), str(entry.spills)] if entry.registers else ["", ""]
            table.add_row(entry.chip, entry.kernel, entry.dtype, *cells, *used, str(entry.shared))
        console.table_console().print(table)

    raise typer.Exit(console.run(body))


@app.command("unpack")
def unpack_command(
    out: Annotated[pathlib.Path, typer.Option("-o", "--out", help="folder to write: <chip>/<kernel>_<type>.cubin and .json")],
    pack: Annotated[pathlib.Path, typer.Argument(help="a pack; default: the installed package's own", show_default=False)] = SHIPPED,
) -> None:
    """Write a pack's machine code and records as files."""

    def body() -> None:
        found = Pack.read(pack)
        refuse_foreign(out)
        with staged(out) as folder:
            found.unpack(folder)
        console.say(f"{len(found.kernels)} kernels: {out}")

    raise typer.Exit(console.run(body))
