"""Ahead of time, without a GPU: Triton compiles the kernels into machine code for every GPU architecture."""

from __future__ import annotations

import ast
import hashlib
import multiprocessing
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

from page4d.errors import MissingBackendError
from page4d_plugins.compile.cubin import parameter_table
from page4d_plugins.kernel_pack import PTX, Entry, Header, Kernel, Pack, Parameter, TileSize, targets, tile_chip
from page4d_plugins.launch_plan import constants
from page4d_plugins.modes import CHIPS, HEAD_DIM, Bytes, Dtype, Keys, Mode, Tile
from page4d_plugins.pixels.pixel_launch import PixelKernel
from page4d_plugins.row_launch import RowKernel

_STRIDES = ("q_z", "q_a", "q_g", "k_z", "k_a", "v_z", "v_a", "out_z", "out_a", "out_g")
_WIDE = (*_STRIDES, "bias_z", "pitch", "chroma_pitch")
"""int64; other integers are int32."""
_FLOATS = ("scale", "gain", "band", "penalty", "epsilon")
_ALIGNED = (
    *("Q", "K", "V", "OUT", "BIAS", "PART", "LSE"),
    *_STRIDES,
    *("q_n", "k_n", "v_n", "out_n"),
    *("X", "P", "GAMMA", "WEIGHT", "SHIFT", "COS", "SIN", "SUM", "channels"),
)
"""Multiples of 16 (bytes of addresses, elements of strides and rows); the plans refuse others."""
_SOURCES = ("attention_kernel", "row_kernel", "pixels/pixel_kernel")
"""Modules of the kernels' code."""
_FOLDER = pathlib.Path(__file__).parents[1]
_ROWS = {kernel.value: kernel for kernel in RowKernel}
_PIXELS = {kernel.value: kernel for kernel in PixelKernel}
_SWIZZLE_128B = 3
_SINCE = {110: (3, 9)}
"""Architectures that Triton can compile for from a version on."""


class Target(NamedTuple):
    """One kernel to compile."""

    kernel: str
    dtype: Dtype | Bytes
    chip: str
    """sm_<chip>, or ptx."""
    tile: Tile


def all_targets(chips: Iterable[str] | None = None) -> list[Target]:
    """The kernels of a pack, for all architectures or some."""
    pack = []
    for chip in targets() if chips is None else chips:
        table = CHIPS[tile_chip(chip)]
        for dtype in Dtype:
            pack += [Target(f"attention_{mode.value}", dtype, chip, table.of(mode)) for mode in Mode]
            pack += [Target(name, dtype, chip, Tile(1, 1, 4, 1)) for name in ("prepare", "merge", *_ROWS)]
        pack += [Target(name, Bytes.UINT8, chip, Tile(1, 1, 4, 1)) for name in _PIXELS]
    return pack


def beyond_compiler() -> list[str]:
    """Architectures that the installed Triton cannot compile for: the driver compiles the PTX for them."""
    version = tuple(int(part) for part in _triton().__version__.split(".")[:2])
    return [f"sm_{chip}" for chip, since in _SINCE.items() if version < since]


def source_hash() -> str:
    """sha256 of what decides the kernels: code without comments and docstrings, and what each is compiled with."""
    trees = [_without_docstrings(ast.parse((_FOLDER / f"{name}.py").read_text())) for name in _SOURCES]
    functions = [function for tree in trees for function in tree.body if isinstance(function, ast.FunctionDef)]
    names = {function.name: [argument.arg for argument in function.args.args] for function in functions}
    digest = hashlib.sha256("".join(map(ast.unparse, trees)).encode())
    for target in all_targets():
        fixed = _constants(target)
        types = signature(target, names[target.kernel.partition("_")[0]], fixed)
        digest.update(repr((target, fixed, types, _ALIGNED)).encode())
    return digest.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    tree.body = [line for line in tree.body if not _is_string(line)]
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            function.body = [line for line in function.body if not _is_string(line)]
    return tree


def _is_string(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def build(kernels: list[Target], workers: int, done: Callable[[Target], None] | None = None) -> Pack:
    """Compile kernels into a pack.

    Args:
        kernels: to compile.
        workers: processes side by side.
        done: called after every kernel.

    Raises:
        MissingBackendError: Triton is not installed.
    """
    triton = _triton()
    compiled = {}
    # spawned, since this process may have threads, which a fork loses
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(compile_kernel, target): target for target in kernels}
        for finished in as_completed(pending):
            kernel = finished.result()
            compiled[kernel.entry.path] = kernel
            if done is not None:
                done(pending[finished])
    return Pack(Header(source_hash(), triton.__version__, _ptxas_version()), compiled)


def compile_kernel(target: Target) -> Kernel:
    """One kernel for one architecture."""
    triton = _triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from page4d_plugins import attention_kernel, row_kernel
    from page4d_plugins.pixels import pixel_kernel

    module = row_kernel if target.kernel in _ROWS else pixel_kernel if target.kernel in _PIXELS else attention_kernel
    function = getattr(module, target.kernel.partition("_")[0])
    fixed = _constants(target)
    names = list(function.arg_names)
    types = signature(target, names, fixed)
    values: dict[str, Any] = {name: fixed.get(name) for name, kind in types.items() if kind == "constexpr"}
    aligned_names = (name for name in _ALIGNED if types.get(name, "constexpr") != "constexpr")
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned_names}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # an own one: code of an earlier source must not be used
        triton.knobs.compilation.disable_line_info = True  # paths of this machine
        compiled = triton.compile(
            ASTSource(fn=function, signature=types, constexprs=values, attrs=aligned),
            target=GPUTarget("cuda", tile_chip(target.chip), 32),
            options={"num_warps": target.tile.warps, "num_stages": target.tile.stages},
        )
    _check_launchable(compiled.metadata, target.tile)
    cubin: bytes = compiled.asm["cubin"]
    registers, spills = (0, 0) if target.chip == PTX else _usage(cubin)
    entry = Entry(
        kernel=target.kernel,
        dtype=target.dtype.value,
        chip=target.chip,
        entry=compiled.metadata.name,
        tile=TileSize(*target.tile),
        threads=32 * compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        registers=registers,
        spills=spills,
        parameters=_parameters(types, cubin),
    )
    return Kernel(entry, compiled.asm["ptx"].encode() if target.chip == PTX else cubin)


def signature(target: Target, names: list[str], fixed: dict[str, Any]) -> dict[str, str]:
    """Triton's type of every argument; `constexpr` for constants, and for arguments that the mode does not use."""
    element = target.dtype.value
    pointers = dict.fromkeys(("Q", "K", "V", "OUT", "SEGMENT_BIAS"), element)
    pointers |= dict.fromkeys(("LSE", "BIAS", "PART", "FUNDAMENTAL", "CENTRES"), "fp32")
    pointers |= dict.fromkeys(("SEG_PTR", "SEG"), "i32")
    unused: set[str] = set()
    if target.kernel == "prepare":
        pointers |= {"BIAS": element, "OUT": "fp32"}
    if target.kernel in _ROWS:
        pointers |= dict.fromkeys(("X", "P", "BIAS", "GAMMA", "SUM"), element)
        pointers |= dict.fromkeys(("WEIGHT", "SHIFT", "COS", "SIN"), "fp32")
        needs = dict.fromkeys(("P", "BIAS", "GAMMA", "SUM"), fixed.get("ADD", True))
        needs |= dict.fromkeys(("WEIGHT", "SHIFT", "OUT", "epsilon"), fixed.get("NORM", True))
        unused = {name for name, needed in needs.items() if not needed}
    if target.kernel in _PIXELS:
        pointers |= dict.fromkeys(("SOURCE", "CHROMA", "RGB", "OUT", "TARGET"), element)
        pointers |= dict.fromkeys(("FIRST", "WEIGHTS"), "i32")
        unused = _PIXELS[target.kernel].unused
    if target.kernel.startswith("attention"):
        mode = Mode(target.kernel.removeprefix("attention_"))
        if mode.partial:
            pointers["OUT"] = "fp32"
        needs = {"LSE": mode.partial, "BIAS": mode.has_bias, "SEGMENT_BIAS": mode is Mode.SEGMENTS_BIASED}
        needs |= dict.fromkeys(("SEG_PTR", "SEG"), mode.keys is Keys.SEGMENTS)
        needs |= dict.fromkeys(("FUNDAMENTAL", "CENTRES"), mode.keys is Keys.VIEWS)
        needs |= {"KD": target.tile.descriptors, "VD": target.tile.descriptors}
        unused = {name for name, needed in needs.items() if not needed}
    types = {}
    for name in names:
        if name in fixed or name in unused:
            types[name] = "constexpr"
        elif name in ("KD", "VD"):
            types[name] = f"tensordesc<{element}[1, 1, {target.tile.keys}, {HEAD_DIM}]>"
        elif name in pointers:
            types[name] = f"*{pointers[name]}"
        else:
            types[name] = "fp32" if name in _FLOATS else "i64" if name in _WIDE else "i32"
    return types


def _constants(target: Target) -> dict[str, int | bool]:
    """What a kernel is compiled with, by name."""
    own = _ROWS.get(target.kernel) or _PIXELS.get(target.kernel)
    return own.constants if own is not None else constants(target.kernel, target.tile)


def _parameters(types: dict[str, str], cubin: bytes) -> list[Parameter]:
    """The machine code's own table with names; a descriptor is a tensor map, its shape and its strides."""
    names: list[tuple[str, bool]] = []
    for name, kind in types.items():
        if kind.startswith("tensordesc"):
            numbers = [f"{name}.{part}{i}" for part in ("shape", "stride") for i in range(4)]
            names += [(part, False) for part in (name, *numbers)]
        elif kind != "constexpr":
            names.append((name, kind == "fp32"))
    table = parameter_table(cubin)
    names += [("", False)] * (len(table) - len(names))  # Triton's scratch memory, of which these kernels need none
    return [
        Parameter(name, offset, size, floating) for (name, floating), (offset, size) in zip(names, table, strict=True)
    ]


def _check_launchable(metadata: Any, tile: Tile) -> None:
    """Refuse code of another Triton that needs more than the launchers give.

    They pass no scratch memory, launch no clusters, and encode descriptors in one way.
    """
    assert metadata.global_scratch_size == metadata.profile_scratch_size == 0 and metadata.num_ctas == 1, metadata
    for descriptor in metadata.tensordesc_meta or []:
        assert descriptor["block_size"] == [1, 1, tile.keys, HEAD_DIM], descriptor
        assert descriptor["swizzle"] == _SWIZZLE_128B, descriptor


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and the bytes that it spills."""
    usage = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", disassemble("cuobjdump", "-res-usage", cubin=cubin))
    assert usage is not None
    registers, stack, local = map(int, usage.groups())
    return registers, stack + local


def disassemble(tool: str, *arguments: str, cubin: bytes) -> str:
    """Output of one of Triton's tools (`cuobjdump`, `nvdisasm`) for machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return _run_tool(tool, *arguments, file.name)


def _ptxas_version() -> str:
    version = re.search(r"release [\d.]+, (V[\d.]+)", _run_tool("ptxas", "--version"))
    assert version is not None
    return version[1]


def _run_tool(tool: str, *arguments: str) -> str:
    """Output of a tool that Triton brings."""
    path = pathlib.Path(_triton().__file__).parent / "backends/nvidia/bin" / tool
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout


def _triton() -> Any:
    try:
        import triton
    except ModuleNotFoundError:
        raise MissingBackendError(
            "compiling kernels needs Triton", hint='pip install "page4d[kernels]", or ".[kernels]" in a checkout'
        ) from None
    return triton
