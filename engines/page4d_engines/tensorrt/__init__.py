"""TensorRT and TensorRT-RTX behind one seam: found, asked to build plans, and what they built read back."""
