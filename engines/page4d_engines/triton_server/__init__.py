"""A model repository for NVIDIA Triton Inference Server, made from an engine folder."""
