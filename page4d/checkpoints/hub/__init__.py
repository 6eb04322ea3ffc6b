"""Checkpoints from a Hugging Face hub: which repository and file is meant, and the download."""
