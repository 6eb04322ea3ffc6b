"""`page4d bench`: which comparison runs, and on what."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Annotated

import typer

from page4d.config import PRESETS, ModelConfig
from page4d.errors import MissingBackendError, UsageError
from page4d.layout import Layout
from page4d.precision import Precision
from page4d_engines import console
from page4d_engines.cli import Verbose
from page4d_export.export_plan import ExportPlan


def bench_command(
    what: Annotated[
        str,
        typer.Argument(
            help=(
                "chain: the whole network; attention: one op, its speed and memory; growth: time and memory over T"
                " and V"
            )
        ),
    ] = "chain",
    preset: Annotated[str, typer.Option(help=f"model size: {', '.join(PRESETS)}")] = "vits",
    T: Annotated[int, typer.Option("--T", help="times")] = 4,
    V: Annotated[int, typer.Option("--V", help="views")] = 4,
    height: Annotated[int, typer.Option(help="image height in pixels")] = 224,
    width: Annotated[int, typer.Option(help="image width in pixels")] = 224,
    keys: Annotated[int, typer.Option(help="for attention: queries and keys")] = 5496,
    rounds: Annotated[int, typer.Option(help="counted rounds, after one that is not")] = 5,
    threads: Annotated[int, typer.Option(help="processor threads")] = 2,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, or auto: cuda for attention where PyTorch has a GPU and Triton is installed, else cpu"
        ),
    ] = "auto",
    bf16: Annotated[bool, typer.Option("--bf16", help="on a GPU: bfloat16 instead of float16")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="for the chain on a CPU: int8 engines, beside PyTorch in float32")
    ] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="for the chain on a GPU: fp8 linear layers, beside PyTorch in float16")
    ] = False,
    backend: Annotated[
        str, typer.Option(help="for the chain on a GPU: tensorrt, cuda, or auto, the first of them that runs")
    ] = "auto",
    sweep: Annotated[
        str | None,
        typer.Option(help="for attention on a GPU: the tiles of one kernel instead, e.g. biased", show_default=False),
    ] = None,
    sweep_seconds: Annotated[float, typer.Option(help="after which a sweep tries no further tile")] = 300.0,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="for the chain on a CPU: beside PyTorch, torch.compile, OpenVINO, a plain ONNX export"
        ),
    ] = False,
    plot: Annotated[
        pathlib.Path | None,
        typer.Option(help="with --peers or for growth: a chart, FILE.png", metavar="FILE", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(help="for growth: after which no further point is measured")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    verbose: Verbose = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False,
) -> None:
    """Time the engines against the reference model in PyTorch: interleaved, medians; in float32 on a CPU, in 16 bits on
    a GPU."""
    console.set_verbosity(verbose, quiet)

    def body() -> None:
        if what not in ("chain", "attention", "growth"):
            raise UsageError("there is no such benchmark", got=what, allowed="chain, attention, growth")
        if rounds < 1 or threads < 1:
            raise UsageError("--rounds and --threads are 1 or more", got=f"{rounds}, {threads}")
        try:
            import torch
        except ModuleNotFoundError:
            raise MissingBackendError(
                "the benchmark's other side needs PyTorch", hint='pip install "page4d[export]"'
            ) from None
        torch.set_num_threads(threads)
        if plot is not None and not peers and what != "growth":
            raise UsageError(
                "--plot draws what --peers or growth measures",
                got=f"--plot {plot}",
                hint=f"page4d bench --peers --plot {plot}",
            )
        if peers and (what != "chain" or device == "cuda"):
            raise UsageError(
                "--peers compares the chain on a CPU", got=f"{what}, --device {device}", allowed="chain, --device cpu"
            )
        if what == "growth":
            from page4d_export.bench.growth.growth import bench_growth
            from page4d_export.bench.growth.growth_table import print_growth

            with console.progress(quiet) as progress:
                grown = bench_growth(preset, height, width, threads, seconds, plot, progress)
            console.write_json(grown) if as_json else print_growth(grown)
            return
        if int8 and (what != "chain" or peers or device == "cuda"):
            raise UsageError(
                "--int8 is a precision of the chain on a CPU",
                got=f"{what}, --device {device}",
                allowed="chain --int8; --peers has it in a row",
            )
        if _on_gpu(device, what):
            if fp8 and (bf16 or what == "attention"):
                raise UsageError(
                    "--fp8 is a precision of the chain's linear layers",
                    got="--bf16" if bf16 else what,
                    allowed="chain --fp8, or chain --bf16",
                )
            if what == "attention":
                _bench_gpu(keys, rounds, bf16, sweep, sweep_seconds, as_json, quiet)
            else:
                layout = Layout(T, V, height, width)
                precision = Precision.FP8 if fp8 else Precision.BFLOAT16 if bf16 else Precision.FLOAT16
                plan = ExportPlan.make(ModelConfig.preset(preset), layout, precision)
                _bench_gpu_chain(plan, preset, rounds, backend, as_json, quiet)
            return
        if bf16 or fp8 or sweep is not None or backend != "auto":
            raise UsageError(
                "--bf16, --fp8, --sweep and --backend are for a GPU",
                got=f"{what}, --device {device}",
                allowed="--device cuda",
            )
        if what == "attention":
            from page4d_export.bench.attention import compare_attention, print_attention

            found = compare_attention(keys, rounds, threads)
            console.write_json(found) if as_json else print_attention(found)
            return
        plan = ExportPlan.make(
            ModelConfig.preset(preset), Layout(T, V, height, width), Precision.INT8 if int8 else Precision.FLOAT32
        )
        if peers:
            _bench_peers(plan, preset, rounds, threads, plot, as_json, quiet)
            return
        from page4d_export.bench.cpu_chain import compare_chain, print_chain

        with console.progress(quiet) as progress:
            result = compare_chain(plan, preset, rounds, threads, progress)
        console.write_json(result) if as_json else print_chain(result)

    raise typer.Exit(console.run(body))


def _on_gpu(device: str, what: str) -> bool:
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError("--device has no such value", got=device, allowed="auto, cpu, cuda")
    if device == "cpu" or (device == "auto" and what != "attention"):
        return False
    has_gpu, has_triton = torch.cuda.is_available(), importlib.util.find_spec("triton") is not None
    if device == "cuda" and not has_gpu:
        hint = "a build of PyTorch for CUDA, on a machine with an NVIDIA GPU; or --device cpu"
        raise MissingBackendError("PyTorch sees no GPU", got=f"torch {torch.__version__}", hint=hint)
    if what != "attention":
        return True
    if device == "cuda" and not has_triton:
        raise MissingBackendError(
            "the attention kernels are launched through Triton", hint='pip install "page4d[kernels]", or --device cpu'
        )
    return has_gpu and has_triton


def _bench_gpu(
    keys: int, rounds: int, bf16: bool, sweep: str | None, sweep_seconds: float, as_json: bool, quiet: bool
) -> None:
    from page4d_export.bench import gpu_tables as table
    from page4d_plugins.bench import compare
    from page4d_plugins.bench import sweep as sweeps
    from page4d_plugins.modes import Dtype

    dtype = Dtype.BFLOAT16 if bf16 else Dtype.FLOAT16
    with console.progress(quiet) as progress:
        if sweep is None:
            found = compare.compare(keys, rounds, dtype, progress=progress)
        else:
            tried = sweeps.sweep(
                sweeps.mode_named(sweep), keys, rounds, dtype, seconds=sweep_seconds, progress=progress
            )
    if sweep is None:
        console.write_json(found) if as_json else table.print_benchmark(found)
        found.require()
    else:
        console.write_json(tried) if as_json else table.print_sweep(tried)
        tried.require()


def _bench_peers(
    plan: ExportPlan, preset: str, rounds: int, threads: int, plot: pathlib.Path | None, as_json: bool, quiet: bool
) -> None:
    from page4d_export.bench.peers import compare_peers, print_peers
    from page4d_export.bench.peers_plot import plot_peers
    from page4d_export.bench.plot_file import check_plot

    if plot is not None:
        check_plot(plot)
    with console.progress(quiet) as progress:
        found = compare_peers(plan, preset, rounds, threads, progress)
    if plot is not None:
        plot_peers(found, plot)
    console.write_json(found) if as_json else print_peers(found)


def _bench_gpu_chain(plan: ExportPlan, preset: str, rounds: int, backend: str, as_json: bool, quiet: bool) -> None:
    from page4d_engines.backend import Backend
    from page4d_export.bench.gpu_chain import compare_gpu_chain, print_gpu_chain

    allowed = [str(known) for known in Backend if known is not Backend.ONNXRUNTIME]
    if backend not in allowed:
        raise UsageError("--backend has no such value", got=backend, allowed=", ".join(allowed))
    with console.progress(quiet) as progress:
        found = compare_gpu_chain(plan, preset, rounds, Backend(backend), progress)
    console.write_json(found) if as_json else print_gpu_chain(found)
