"""Stages become ONNX graphs."""
