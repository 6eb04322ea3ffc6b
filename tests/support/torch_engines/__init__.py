"""Engines whose stages PyTorch computes."""
