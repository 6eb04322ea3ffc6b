"""Cameras' images on a GPU: their formats, and the resize to the engines' size."""
