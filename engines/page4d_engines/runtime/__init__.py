"""Engines chained over buffers that are allocated once."""
