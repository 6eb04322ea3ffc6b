"""Ahead of time: Triton compiles the kernels into machine code."""
