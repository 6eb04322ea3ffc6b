"""TensorRT plugins that launch the kernels."""
