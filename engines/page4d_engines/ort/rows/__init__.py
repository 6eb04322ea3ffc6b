"""Elementwise operations of a graph that a row kernel computes: which they are, and the call that replaces them."""
