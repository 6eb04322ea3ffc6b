"""The two attention ops under their public name; their definitions stand in `page4d.network.attention`."""

from page4d.network.attention import biased_attention, segment_attention

__all__ = ["biased_attention", "segment_attention"]
