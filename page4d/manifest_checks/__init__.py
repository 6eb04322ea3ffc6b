"""Whether a manifest is consistent: its chain of stages, its files, its sizes."""
