"""`Precision`: the dtype of tokens and weights, and what follows from it."""

from __future__ import annotations

import enum


class Precision(str, enum.Enum):
    """Dtype of the tokens and weights of an engine. Norms, softmax statistics, sigmoid and lambdas are float32 in all.

    In int8 and fp8 only the linear layers are quantised, their weights and most activations; everything else, tokens
    included, is float32 in int8 and float16 in fp8.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    FP8 = "fp8"

    def __str__(self) -> str:
        return self.value

    @property
    def tokens(self) -> str:
        """Dtype of tokens, and of weights that are not a linear layer's matrix."""
        return {Precision.INT8: "float32", Precision.FP8: "float16"}.get(self, self.value)

    @property
    def is_quantised(self) -> bool:
        """Whether linear layers have 8-bit values, for which activations are measured before an export."""
        return self in (Precision.INT8, Precision.FP8)

    @property
    def has_16_bits(self) -> bool:
        """Whether tokens have 16 bits, which a GPU computes in and a CPU does not."""
        return DTYPE_BYTES[self.tokens] == 2

    @property
    def itemsize(self) -> int:
        """Bytes of an element of `tokens`."""
        return DTYPE_BYTES[self.tokens]

    @property
    def least_chip(self) -> int:
        """Compute capability, times ten, of the oldest GPU whose TensorRT plans compute in it."""
        return 89 if self is Precision.FP8 else 80

    @property
    def tolerance(self) -> float:
        """Largest relative L2 error of a stage's output that passes.

        A block adds a few roundings to its input, each of half a unit in the last place (6e-8, 5e-4, 4e-3; in int8 a
        254th of a channel's range, in fp8 6e-2), to values that partly cancel; the bounds are two to four times what
        the presets measure.
        """
        return {
            Precision.FLOAT32: 1e-5,
            Precision.FLOAT16: 4e-3,
            Precision.BFLOAT16: 3e-2,
            Precision.INT8: 2e-2,
            Precision.FP8: 6e-2,
        }[self]


MOST_NUMBERS = 2**40
"""Elements of a tensor over all calls of its stage: far beyond any machine, far below an overflow."""
DTYPE_BYTES = {"uint8": 1, "int32": 4, "float32": 4, "float16": 2, "bfloat16": 2}
