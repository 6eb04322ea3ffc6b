"""`Precision`: the dtype of tokens and weights, and what follows from it."""

from __future__ import annotations

import enum


class Precision(str, enum.Enum):
    """Dtype of the tokens and weights of an engine. Norms, softmax statistics, sigmoid and lambdas are float32 in all."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    def __str__(self) -> str:
        return self.value

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return DTYPE_BYTES[self.value]

    @property
    def tolerance(self) -> float:
        """Largest relative L2 error of a stage's output that passes.

        A block adds a handful of roundings to its input, each half a unit in the last place (6e-8, 5e-4, 4e-3) of values that
        partly cancel; the bounds leave a factor of about four to what the presets measure.
        """
        return {Precision.FLOAT32: 1e-5, Precision.FLOAT16: 4e-3, Precision.BFLOAT16: 3e-2}[self]


DTYPE_BYTES = {"uint8": 1, "int32": 4, "float32": 4, "float16": 2, "bfloat16": 2}
