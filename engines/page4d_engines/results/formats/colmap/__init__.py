"""COLMAP's sparse model: cameras, images and points with tracks, in binary and text."""
