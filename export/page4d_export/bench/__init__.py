"""Benchmarks: our chain, the attention kernels, other runtimes."""
