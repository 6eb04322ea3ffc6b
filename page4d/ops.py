"""The two attention ops by name: what the model's ONNX nodes, a lowering and a plugin agree on. No torch."""

from __future__ import annotations

import enum
from typing import NamedTuple

DOMAIN = "page4d"
"""Of the nodes in ONNX, and the namespace of the TensorRT plugins."""
BIASED_ATTENTION = "BiasedAttention"
SEGMENT_ATTENTION = "SegmentAttention"
PLUGIN_ATTRIBUTES = {"plugin_version": "1", "plugin_namespace": DOMAIN}
"""Of a node that may become a plugin: TensorRT takes one only where name, version and namespace agree, and silently the
function body otherwise."""
BIASED_INPUTS = ("q", "k", "v", "key_bias", "fundamental", "centres")
"""Inputs of a BiasedAttention node: the first 3, 4 or 6."""
SEGMENT_INPUTS = ("q", "k", "v", "key_bias", "seg_ptr", "seg", "segment_bias")
"""Inputs of a SegmentAttention node: the first 6 or all."""


class AttentionChoice(enum.Enum):
    """How TensorRT computes the attention nodes of a graph; ONNX Runtime lowers them in any case."""

    AUTO = "auto"
    """This project's plugin where it is registered, else TensorRT's own fusion of the node's body."""
    PLUGIN = "plugin"
    """The plugin, or no engine."""
    NATIVE = "native"
    """TensorRT's own fusion: the nodes do not name a plugin."""

    def __str__(self) -> str:
        return self.value


class BiasedRows(NamedTuple):
    """A key bias for some queries only: the first `leading` of every `period` rows, multiplied by `gain`."""

    period: int
    leading: int
    gain: float
