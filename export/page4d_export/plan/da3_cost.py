"""What Depth Anything 3's camera encoder and decoder cost: multiply-adds and parameters from sizes alone.

Both are float32 in every precision, but that int8 quantizes the encoder's blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from page4d.config import CAMERA_BLOCKS, ModelConfig
from page4d.precision import Precision
from page4d.published import QUATERNION_NUMBERS
from page4d_export.plan.cost import Flop


@dataclass(frozen=True)
class CameraDecoderCost:
    """The camera head: two layers on the camera token of every image, then its nine numbers."""

    config: ModelConfig

    @property
    def parameters(self) -> int:
        """Of the whole head."""
        return self._products + 2 * self._width + QUATERNION_NUMBERS

    @property
    def weight_bytes(self) -> int:
        """Of the whole head as it is stored."""
        return 4 * self.parameters

    def flop(self, images: int) -> Flop:
        """A call on so many images."""
        return Flop(2 * images * self._products)

    @property
    def _width(self) -> int:
        return 2 * self.config.width

    @property
    def _products(self) -> int:
        return 2 * self._width**2 + QUATERNION_NUMBERS * self._width


@dataclass(frozen=True)
class CameraEncoderCost:
    """Known cameras to special tokens: an MLP, then blocks over the cameras of a clip."""

    config: ModelConfig
    precision: Precision

    @property
    def parameters(self) -> int:
        """Of the whole encoder."""
        width = self.config.width
        branch = self._branch_products + width // 2 + width
        vectors = (9 + 4 + 2) * width  # biases, both norms, LayerScale
        return branch + 2 * 2 * width + CAMERA_BLOCKS * (self._block_products + vectors)

    @property
    def weight_bytes(self) -> int:
        """Of the whole encoder as it is stored."""
        eight_bits = 0
        if self.precision is Precision.INT8:
            scales = 4 * 9 * self.config.width
            eight_bits = CAMERA_BLOCKS * (scales - 3 * self._block_products)
        return 4 * self.parameters + eight_bits

    def flop(self, cameras: int) -> Flop:
        """A call on so many cameras."""
        linears = 2 * cameras * (self._branch_products + CAMERA_BLOCKS * self._block_products)
        return Flop(linears, CAMERA_BLOCKS * 4 * cameras * cameras * self.config.width)

    @property
    def _branch_products(self) -> int:
        half = self.config.width // 2
        return half * (QUATERNION_NUMBERS + self.config.width)

    @property
    def _block_products(self) -> int:
        return 12 * self.config.width**2
