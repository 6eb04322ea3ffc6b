"""What other programs read: files of a run in their formats."""
