"""The kernels as machine code, compiled by Triton ahead of time."""
