"""The two attention ops on NVIDIA GPUs.

A Triton kernel, its machine code for every GPU architecture, and TensorRT plugins that launch it. `biased_attention`
and `segment_attention` are those of `page4d.attention`, on tensors of a GPU; they need torch and Triton, which are
imported at first use. The plugin needs neither.
"""

from __future__ import annotations

from typing import Any

__all__ = ["biased_attention", "segment_attention"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from page4d_plugins import attention

        return getattr(attention, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
