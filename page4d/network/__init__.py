"""The reference model: its blocks, its attention, its heads."""
