"""A finished run, read back: its images with photos, cameras, points, depth and masks."""
