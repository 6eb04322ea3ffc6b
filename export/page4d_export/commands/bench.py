"""`page4d bench`: the engines and kernels timed beside PyTorch and other runtimes, a sub-command a comparison."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import typer

from page4d.config import PRESETS, ModelConfig
from page4d.errors import MissingBackendError, UsageError
from page4d.layout import Layout
from page4d.precision import Precision
from page4d_engines import console
from page4d_engines.cli import Quiet, Verbose
from page4d_export.plan.export_plan import ExportPlan
from page4d_plugins.modes import Dtype, Mode

Result = TypeVar("Result")
app = typer.Typer(
    no_args_is_help=True, help="Time the engines beside PyTorch and other runtimes: sides in turn, medians."
)


Preset = Annotated[str, typer.Option(help=f"model size: {', '.join(PRESETS)}")]
Timesteps = Annotated[int, typer.Option("--T", help="timesteps of a window")]
Views = Annotated[int, typer.Option("--V", help="views (cameras)")]
Height = Annotated[int, typer.Option(help="image height in pixels, a multiple of 14")]
Width = Annotated[int, typer.Option(help="image width in pixels, a multiple of 14")]
Keys = Annotated[int, typer.Option(help="queries and keys: tokens of a clip of whole frames")]
Rounds = Annotated[int, typer.Option(min=1, help="counted rounds, after one that is not")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each side")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="on a GPU: bfloat16 instead of float16")]
Plot = Annotated[
    pathlib.Path | None, typer.Option(help="a chart to write, FILE.png", metavar="FILE", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]


@app.command("chain")
def chain_command(
    preset: Preset = "vits",
    T: Timesteps = 4,
    V: Views = 4,
    height: Height = 224,
    width: Width = 224,
    rounds: Rounds = 5,
    threads: Threads = 2,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="of both sides")] = "cpu",
    bf16: Bf16 = False,
    int8: Annotated[bool, typer.Option("--int8", help="on a CPU: int8 engines, beside PyTorch in float32")] = False,
    fp8: Annotated[bool, typer.Option("--fp8", help="on a GPU: fp8 linear layers, beside PyTorch in float16")] = False,
    backend: Annotated[
        Literal["auto", "tensorrt", "cuda"],
        typer.Option(help="of the engines on a GPU; auto: the first of the others that runs"),
    ] = "auto",
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time the whole network: the engines beside the model in PyTorch; float32 on a CPU, float16 on a GPU."""

    def body() -> None:
        precision = _chain_precision(device, bf16=bf16, int8=int8, fp8=fp8)
        _require_torch(threads)
        plan = ExportPlan.make(ModelConfig.preset(preset), Layout(T, V, height, width), precision)
        if device == "cpu":
            if backend != "auto":
                raise UsageError("--backend is a choice on a GPU", got=backend, allowed="--device cuda")
            from page4d_export.bench.cpu_chain import compare_chain, print_chain

            with console.progress(quiet) as progress:
                on_cpu = compare_chain(plan, preset, rounds, threads, progress)
            _show(on_cpu, print_chain, as_json)
            return
        _require_gpu()
        from page4d_engines.backend import Backend
        from page4d_export.bench.gpu_chain import compare_gpu_chain, print_gpu_chain

        with console.progress(quiet) as progress:
            on_gpu = compare_gpu_chain(plan, preset, rounds, Backend(backend), progress)
        _show(on_gpu, print_gpu_chain, as_json)

    _run(body, verbose, quiet)


@app.command("attention")
def attention_command(
    keys: Keys = 5496,
    rounds: Rounds = 5,
    threads: Threads = 2,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="auto: a GPU where PyTorch has one and Triton is installed, else the CPU"),
    ] = "auto",
    bf16: Bf16 = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time one attention op: on a GPU this project's kernels beside others, on a CPU the engines beside PyTorch."""

    def body() -> None:
        _require_torch(threads)
        if device == "cuda":
            _require_gpu(triton=True)
        if device == "cpu" or not _has_gpu_and_triton():
            if bf16:
                raise UsageError("attention on a CPU is timed in float32", got="--bf16", allowed="--device cuda --bf16")
            from page4d_export.bench.attention import compare_attention, print_attention

            _show(compare_attention(keys, rounds, threads), print_attention, as_json)
            return
        from page4d_export.bench.gpu_tables import print_benchmark
        from page4d_plugins.bench.compare import compare

        with console.progress(quiet) as progress:
            result = compare(keys, rounds, _dtype(bf16), progress=progress)
        _show(result, print_benchmark, as_json)
        result.require()

    _run(body, verbose, quiet)


@app.command("sweep")
def sweep_command(
    kernel: Annotated[Mode, typer.Argument(help="the attention kernel's mode", show_default=False)],
    keys: Keys = 5496,
    rounds: Rounds = 5,
    bf16: Bf16 = False,
    seconds: Annotated[float, typer.Option(min=0, help="after which no further tile is tried")] = 300.0,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time the tiles of one attention kernel on this machine's GPU, beside the one that is used."""

    def body() -> None:
        _require_torch(1)
        _require_gpu(triton=True)
        from page4d_export.bench.gpu_tables import print_sweep
        from page4d_plugins.bench.sweep import sweep

        with console.progress(quiet) as progress:
            result = sweep(kernel, keys, rounds, _dtype(bf16), seconds=seconds, progress=progress)
        _show(result, print_sweep, as_json)
        result.require()

    _run(body, verbose, quiet)


@app.command("peers")
def peers_command(
    preset: Preset = "vits",
    T: Timesteps = 4,
    V: Views = 4,
    height: Height = 224,
    width: Width = 224,
    rounds: Rounds = 5,
    threads: Threads = 2,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="leave out contestants whose names have this; again for more", metavar="TEXT", show_default=False
        ),
    ] = None,
    plot: Plot = None,
    beside: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            help="what --json wrote before, to draw in panels beside this", metavar="FILE", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time the whole network on a CPU: the engines beside PyTorch, torch.compile, OpenVINO, a plain ONNX export."""

    def body() -> None:
        _require_torch(threads)
        from page4d_export.bench.peers import chosen_names, compare_apart, print_peers, read_peers
        from page4d_export.bench.peers_plot import plot_peers
        from page4d_export.bench.plot_file import check_plot

        chosen_names(without or [])
        if plot is not None:
            check_plot(plot)
        elif beside:
            raise UsageError("--beside is drawn with --plot", got="no --plot", hint="--plot FILE.png")
        before = [read_peers(path) for path in beside or []]
        plan = ExportPlan.make(ModelConfig.preset(preset), Layout(T, V, height, width), Precision.FLOAT32)
        with console.progress(quiet) as progress:
            result = compare_apart(plan, preset, rounds, threads, progress, without or [])
        if plot is not None:
            plot_peers([*before, result], plot)
        _show(result, print_peers, as_json)

    _run(body, verbose, quiet)


@app.command("growth")
def growth_command(
    preset: Preset = "vits",
    height: Height = 224,
    width: Width = 224,
    threads: Threads = 2,
    seconds: Annotated[float, typer.Option(min=0, help="after which no further point is measured")] = 600.0,
    plot: Plot = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure and model time and memory over T and V, on a CPU: what fits this machine, and how long it takes."""

    def body() -> None:
        _require_torch(threads)
        from page4d_export.bench.growth.growth import bench_growth
        from page4d_export.bench.growth.growth_table import print_growth

        with console.progress(quiet) as progress:
            result = bench_growth(preset, height, width, threads, seconds, plot, progress)
        _show(result, print_growth, as_json)

    _run(body, verbose, quiet)


@app.command("cpp")
def cpp_command(
    engines: Annotated[pathlib.Path, typer.Argument(help="engine folder", show_default=False)],
    program: Annotated[
        pathlib.Path,
        typer.Option(help="built of engines/cpp: cmake --build build --target page4d_time_windows", metavar="FILE"),
    ] = pathlib.Path("build/tests/time_windows"),
    rounds: Rounds = 5,
    threads: Threads = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Time windows of an engine folder on a CPU: the runtime in C++ beside the one in Python, and their memory."""

    def body() -> None:
        from page4d_export.bench.languages.cpp_windows import compare_languages, print_languages

        with console.progress(quiet) as progress:
            result = compare_languages(engines, program, rounds, threads, progress)
        _show(result, print_languages, as_json)

    _run(body, verbose, quiet)


def _run(body: Callable[[], None], verbose: bool, quiet: bool) -> None:
    console.set_verbosity(verbose, quiet)
    raise typer.Exit(console.run(body))


def _show(result: Result, print_result: Callable[[Result], None], as_json: bool) -> None:
    console.write_json(result) if as_json else print_result(result)


def _dtype(bf16: bool) -> Dtype:
    return Dtype.BFLOAT16 if bf16 else Dtype.FLOAT16


def _chain_precision(device: str, bf16: bool, int8: bool, fp8: bool) -> Precision:
    flags = {"--bf16": bf16, "--int8": int8, "--fp8": fp8}
    chosen = [flag for flag, is_set in flags.items() if is_set]
    if device == "cpu":
        allowed = {"": Precision.FLOAT32, "--int8": Precision.INT8}
    else:
        allowed = {"": Precision.FLOAT16, "--bf16": Precision.BFLOAT16, "--fp8": Precision.FP8}
    if len(chosen) > 1 or "".join(chosen) not in allowed:
        raise UsageError(
            f"the chain is not timed in this precision with --device {device}",
            got=" ".join(chosen),
            allowed=" or ".join(f"{flag or 'no flag'} ({precision})" for flag, precision in allowed.items()),
        )
    return allowed["".join(chosen)]


def _require_torch(threads: int) -> None:
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingBackendError(
            "the benchmark's other side needs PyTorch", hint='pip install "page4d[export]"'
        ) from None
    torch.set_num_threads(threads)


def _require_gpu(triton: bool = False) -> None:
    import torch

    if not torch.cuda.is_available():
        hint = "a build of PyTorch for CUDA, on a machine with an NVIDIA GPU; or --device cpu"
        raise MissingBackendError("PyTorch sees no GPU", got=f"torch {torch.__version__}", hint=hint)
    if triton and not _has_gpu_and_triton():
        raise MissingBackendError(
            "the attention kernels are launched through Triton", hint='pip install "page4d[kernels]", or --device cpu'
        )


def _has_gpu_and_triton() -> bool:
    import torch

    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None
