"""Clips in which cameras lack frames."""
