"""`page4d plugins`: what the kernel pack holds, and how it is built."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Annotated

import typer

from page4d.errors import UsageError
from page4d.files import NEW_FOLDER, refuse_foreign, staged, write_atomically
from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose, out_option
from page4d_plugins.kernel_pack import KERNELS, SHIPPED, SUFFIX, Pack, targets, tile_chip

app = typer.Typer(no_args_is_help=True, help="The kernels for NVIDIA GPUs: what the pack holds, and how it is built.")


@app.command("build")
def build_command(
    out: Annotated[
        pathlib.Path | None,
        out_option(
            "a folder of code and records, or a .tar.xz; default: the installed package's pack", show_default=False
        ),
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option(help=f"of {', '.join(targets())}; repeatable, or with commas; default: all", show_default=False),
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="processes side by side", show_default="one per CPU")
    ] = os.cpu_count() or 1,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compile every kernel for every GPU architecture, without a GPU or a driver. Equal sources give equal bytes."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        from page4d_plugins.compile import compiler

        chips = _chips(chip or [], out)
        if jobs < 1:
            raise UsageError("--jobs is 1 or more", got=jobs)
        if out is not None:
            _check_out(out)
        path = SHIPPED if out is None else out
        beyond = compiler.beyond_compiler()
        kernels = compiler.all_targets([name for name in chips or targets() if name not in beyond])
        if not kernels:
            raise UsageError(
                "the installed Triton cannot compile for this GPU architecture",
                got=", ".join(chips),
                hint="a newer Triton, or ptx: drivers compile it",
            )
        started = time.monotonic()
        with console.progress(quiet) as progress:
            steps = progress.part(0.0, 1.0, len(kernels))
            pack = compiler.build(
                kernels, jobs, lambda target: steps.step(f"{target.chip} {target.kernel} {target.dtype.value}")
            )
        if path.name.endswith(SUFFIX):
            write_atomically(path, pack.content())
        else:
            with staged(path, KERNELS) as folder:
                pack.unpack(folder)
        console.say(f"{len(kernels)} kernels in {time.monotonic() - started:.0f} s: {path}", quiet)
        for name in beyond if not chips else []:
            console.say(f"{name}: not known to Triton {pack.header.triton}; drivers compile the PTX for it", quiet)
        if spilled := [kernel.entry.path for kernel in pack.kernels.values() if kernel.entry.spills]:
            console.say(f"registers spilled: {', '.join(spilled)}")

    raise typer.Exit(console.run(body))


def _chips(options: list[str], out: pathlib.Path | None) -> list[str]:
    """The GPU architectures that `--chip` names; none: all."""
    chips = list(dict.fromkeys(filter(None, ",".join(options).split(","))))
    if unknown := [name for name in chips if name not in targets()]:
        raise UsageError(
            "there are no kernels for this GPU architecture", got=", ".join(unknown), allowed=", ".join(targets())
        )
    if chips and out is None:
        raise UsageError(
            "a pack of some GPU architectures cannot take the place of the package's own",
            got="--chip without -o",
            hint="-o FOLDER, or -o FILE.tar.xz",
        )
    return chips


def _check_out(path: pathlib.Path) -> None:
    """Refuse a place where no pack can be written, or something else lies."""
    folder = path.absolute().parent
    if not path.name.endswith(SUFFIX):
        refuse_foreign(path, KERNELS)
    elif not folder.is_dir():
        raise UsageError("-o lies in a folder that does not exist", got=path, hint=f"mkdir -p {folder}")
    elif path.exists():
        Pack.read(path)  # a file that is not a pack stays


@app.command("list")
def list_command(
    pack: Annotated[
        pathlib.Path, typer.Argument(help="a pack; default: the installed package's own", show_default=False)
    ] = SHIPPED,
    as_json: Annotated[
        bool, typer.Option("--json", help="every kernel's record as one JSON document on stdout")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Say what a pack holds: kernels by GPU architecture, their tiles, registers, shared memory."""
    console.set_verbosity(verbose)

    def body() -> None:
        contents = Pack.read(pack)
        entries = sorted(
            (kernel.entry for kernel in contents.kernels.values()),
            key=lambda entry: (tile_chip(entry.chip), entry.path),
        )
        if as_json:
            console.write_json({"header": contents.header, "kernels": entries})
            return
        table = console.table(
            f"{pack.name}: Triton {contents.header.triton}, ptxas {contents.header.ptxas}",
            ["chip", "kernel", "type"],
            ["queries x keys", "warps", "stages", "K, V by", "registers", "spilled B", "shared B"],
        )
        for entry in entries:
            tile = entry.tile
            cut = [
                f"{tile.queries} x {tile.keys}",
                str(tile.warps),
                str(tile.stages),
                "descriptor" if tile.descriptors else "pointer",
            ]
            cells = cut if entry.kernel.startswith("attention") else ["", "", "", ""]
            used = [str(entry.registers), str(entry.spills)] if entry.registers else ["", ""]
            table.add_row(entry.chip, entry.kernel, entry.dtype, *cells, *used, str(entry.shared))
        console.table_console().print(table)

    raise typer.Exit(console.run(body))


@app.command("unpack")
def unpack_command(
    out: Annotated[pathlib.Path, out_option("folder to write: <chip>/<kernel>_<type>.cubin and .json")],
    pack: Annotated[
        pathlib.Path, typer.Argument(help="a pack; default: the installed package's own", show_default=False)
    ] = SHIPPED,
    verbose: Verbose = False,
) -> None:
    """Write a pack's machine code and records as files."""
    console.set_verbosity(verbose)

    def body() -> None:
        contents = Pack.read(pack)
        refuse_foreign(out)
        with staged(out, NEW_FOLDER) as folder:
            contents.unpack(folder)
        console.say(f"{len(contents.kernels)} kernels: {out}")

    raise typer.Exit(console.run(body))
