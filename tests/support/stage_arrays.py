"""Arrays for the inputs and outputs of a stage, as a chain on a host has them."""

import numpy as np


def arrays_of(specs):
    """Random ones by binding; float32 where the stage has 16 bits, and all levels of an image's bytes."""
    rng = np.random.default_rng(0)
    values = {}
    for spec in specs:
        dtype = "float32" if spec.dtype in ("float16", "bfloat16") else spec.dtype
        high = 256 if dtype == "uint8" else 1
        values[spec.binding] = (rng.random(spec.shape) * high).astype(dtype)
    return values
