"""Small checkpoints in files, and what a load of them does."""
