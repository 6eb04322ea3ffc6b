"""What a checkpoint file is, and which of its tensors goes where."""
