"""Frames, masks and cameras of a clip: found, read, fitted, cut into windows."""
