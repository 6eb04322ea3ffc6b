"""Traced graphs without weights, kept for the next stage, the next export, or another process."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import pathlib
from collections.abc import Callable, Iterator

import onnx
from torch import nn

import page4d
from page4d.config import ModelConfig
from page4d.files import write_atomically
from page4d.manifest import StageEntry
from page4d.ops import AttentionChoice
from page4d_export.stage import Stage

VARIABLE = "PAGE4D_TRACES"
"""Environment variable: a folder in which exports of all processes share their traces; unset, nothing is kept."""

_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir")
_COUNTS = ("depth", "encoder_depth", "keep_layers", "global_layers", "sparse_attention", "sparse_layers")
"""Fields of a config that say how many layers there are, and which have what: what a stage has of that is in its
parameters, its signature and its modules' attributes, so models of every depth share their traces."""


class TraceCache:
    """Graphs by `trace_key`: in memory, and in a folder where one is given."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self._folder = folder
        self._traces: dict[str, onnx.ModelProto] = {}

    @classmethod
    def of_environment(cls) -> TraceCache:
        """With the folder that `PAGE4D_TRACES` names, if it names one."""
        folder = os.environ.get(VARIABLE)
        return cls(pathlib.Path(folder) if folder else None)

    def get(self, key: str, trace: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        """The graph of a key, traced if it is not there; not to be changed."""
        if key not in self._traces:
            self._traces[key] = self._load(key, trace)
        return self._traces[key]

    def _load(self, key: str, trace: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        if self._folder is None:
            return trace()
        path = self._folder / f"{key}.onnx"
        if path.exists():
            return onnx.load(path)
        graph = trace()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, graph.SerializeToString())
        return graph


def trace_key(stage: Stage, module: nn.Module, attention: AttentionChoice, head_dim: int) -> str:
    """A hash of everything that a stage's trace depends on.

    That is the stage's kind and signature; every module's class, its plain attributes (the config and the layout among
    them) and its parameters' shapes and dtypes; how attention is written; the versions of what traces, and this
    project's own source.
    """
    entry = stage.entry
    parts = [_versions(), entry.kind, entry.inputs, entry.outputs, str(attention), head_dim, *_described(module)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _described(module: nn.Module) -> Iterator[object]:
    for name, child in module.named_modules():
        yield name, type(child).__qualname__
        for attribute, value in sorted(vars(child).items()):
            if not attribute.startswith("_") and not isinstance(value, StageEntry):  # its name and number do not matter
                yield attribute, _without_counts(value) if isinstance(value, ModelConfig) else value
    for name, parameter in module.named_parameters():
        yield name, tuple(parameter.shape), parameter.dtype
    for name, buffer in module.named_buffers():  # a constant of the graph
        yield name, buffer.dtype, buffer.tolist()


def _without_counts(config: ModelConfig) -> dict[str, object]:
    return {name: value for name, value in vars(config).items() if name not in _COUNTS}


@functools.cache
def _versions() -> str:
    digest = hashlib.sha256()
    for folder in (pathlib.Path(page4d.__file__).parent, pathlib.Path(__file__).parents[1]):  # this package, and below
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return " ".join(importlib.metadata.version(package) for package in _PACKAGES) + digest.hexdigest()
