"""A rendered clip of a moving scene, with masks and cameras."""
