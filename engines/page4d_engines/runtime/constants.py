"""Tensors that an engine folder carries, constants of every run among them, checked against the manifest."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from page4d.errors import EngineError
from page4d.layout import Layout
from page4d.manifest import CONSTANTS, Manifest
from page4d.system.folder_file import path_inside
from page4d_engines.engine_folder import EngineFolder

_HEADER = 1 << 20  # bytes that a file's header may have


def read_constants(folder: EngineFolder) -> dict[str, NDArray[np.float32]]:
    """`special` of every image, `[T*V,1+registers,C]`, and the learned `memory` `[S,M,C]`, where they are constants.

    Float32. Engines without either need no file.

    Raises:
        EngineError: the file is damaged, a constant is missing, of another shape or not finite, or there is one more.
    """
    needed: dict[str, tuple[tuple[int, ...], str]] = {}
    for name in folder.manifest.constants:
        if (shape := shape_of(folder.manifest, name)) is not None:
            needed[name] = (shape, "float32")
    return read_tensors(folder, CONSTANTS, needed) if needed else {}


def shape_of(manifest: Manifest, name: str) -> tuple[int, ...] | None:
    """The shape of a value from outside over all calls of the stage that reads it; None where none does."""
    for entry in manifest.stages:
        for spec in entry.inputs:
            if spec.name == name:
                return (entry.calls * spec.shape[0], *spec.shape[1:])
    return None


def special_tokens(special: NDArray[np.float32], present: NDArray[np.uint8], layout: Layout) -> NDArray[np.float32]:
    """Special tokens of a window in which images are absent: the first image that is there has those of the first.

    Args:
        special: the constant, `[B*T*V,1+registers,C]`: of each clip's first image, then of all others.
        present: 1 for the images that are there, at least one of each clip, `[T,V]` or `[B,T,V]`.
        layout: of the engines.

    Returns:
        As `special`.
    """
    clips = present.reshape(layout.B, layout.frames)
    moved = special.reshape(layout.B, layout.frames, *special.shape[1:]).copy()
    for clip, first in enumerate(clips.argmax(1).tolist()):
        if first > 0:
            moved[clip, [0, first]] = moved[clip, [1, 0]]
    return moved.reshape(special.shape)


def read_tensors(
    folder: EngineFolder, file: str, needed: Mapping[str, tuple[tuple[int, ...], str]]
) -> dict[str, NDArray[Any]]:
    """The tensors of a .safetensors file of the folder.

    Args:
        folder: whose file it is.
        file: its name in the manifest.
        needed: shape and dtype of each tensor, by name: all of them, and no others.

    Returns:
        The tensors by name, in the shapes and dtypes of `needed`.

    Raises:
        EngineError: the file is damaged or has other tensors, or values that are not finite.
    """
    path = path_inside(folder.path, file)
    most = _HEADER + sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in needed.values())
    if path.stat().st_size > most:
        raise _damaged(file, f"{path.stat().st_size} bytes", f"up to {most}")
    tensors = _loaded(path, file)
    if tensors.keys() != needed.keys():
        raise _damaged(file, ", ".join(tensors) or "no tensors", ", ".join(needed))
    for name, (shape, dtype) in needed.items():
        array = tensors[name]
        if array.shape != shape or array.dtype.name != dtype:
            raise _damaged(f"{name} in {file}", f"{array.dtype.name} {list(array.shape)}", f"{dtype} {list(shape)}")
        if not np.isfinite(array).all():
            raise _damaged(f"{name} in {file}", "NaN or infinity", "finite numbers")
    return tensors


def _loaded(path: pathlib.Path, file: str) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises a type of its own, and numpy's for types that it does not know
        got = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(file, got, "a .safetensors file") from None


def _damaged(what: str, got: str, allowed: str) -> EngineError:
    return EngineError(f"{what} is not as the engines need it", got=got, allowed=allowed, hint="page4d-export again")
