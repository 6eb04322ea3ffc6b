"""Stages on ONNX Runtime: on a CPU, and on a GPU."""
