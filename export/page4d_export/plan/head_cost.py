"""What VGGT's camera head and all DPT heads cost: multiply-adds and parameters from sizes alone, for any width."""

from __future__ import annotations

from dataclasses import dataclass

from page4d.config import CAMERA_BLOCKS, ModelConfig
from page4d.layout import Layout
from page4d.precision import Precision
from page4d.published import QUATERNION_NUMBERS, FinalNorm
from page4d_export.plan.cost import Flop

CAMERA_REFINEMENTS = 4
"""How often the camera head runs its trunk, each time from the pose before."""


@dataclass(frozen=True)
class CameraCost:
    """The camera head: a trunk of blocks, twice as wide as the model, that runs four times on each image's first token.

    Its weights are float32 in 16 bits too; in int8 its blocks' matrices have eight bits.
    """

    config: ModelConfig
    precision: Precision

    @property
    def parameters(self) -> int:
        """Of the whole head."""
        wide, half, numbers = 2 * self.config.width, self.config.width, QUATERNION_NUMBERS
        embedding = numbers + (numbers + 1) * wide + (wide + 1) * 3 * wide
        branch = (wide + 1) * half + (half + 1) * numbers
        return embedding + 2 * 2 * wide + branch + CAMERA_BLOCKS * (self._block_matrices + self._block_vectors)

    @property
    def weight_bytes(self) -> int:
        """Of the whole head as it is stored: once, though it runs four times."""
        eight_bits = 0
        if self.precision is Precision.INT8:
            scales = 4 * 9 * 2 * self.config.width
            eight_bits = CAMERA_BLOCKS * (scales - 3 * self._block_matrices)
        return 4 * self.parameters + eight_bits

    def flop(self, sequences: int, images: int) -> Flop:
        """A call on sequences of so many images."""
        wide, half = 2 * self.config.width, self.config.width
        per_image = QUATERNION_NUMBERS * wide + 3 * wide * wide + wide * half + half * QUATERNION_NUMBERS
        linears = 2 * images * (per_image + CAMERA_BLOCKS * self._block_matrices)
        attention = CAMERA_BLOCKS * 4 * images * images * wide
        return CAMERA_REFINEMENTS * sequences * Flop(linears, attention)

    @property
    def _block_matrices(self) -> int:
        return 12 * (2 * self.config.width) ** 2

    @property
    def _block_vectors(self) -> int:
        """Biases, both norms, LayerScale."""
        return (9 + 4 + 2) * 2 * self.config.width


@dataclass(frozen=True)
class DptCost:
    """The depth or the points head, a DPT.

    Attributes:
        config: of the model, which decides the head's sizes.
        layout: gives the maps' sizes.
        precision: of its weights; its norms are float32.
        numbers: that it gives for each pixel: 2 or 4 with the confidence; with a sky of its own 1.
    """

    config: ModelConfig
    layout: Layout
    precision: Precision
    numbers: int

    @property
    def parameters(self) -> int:
        """Of the whole head."""
        return self._norms + self._projections + sum(self._channels) + self._others

    @property
    def weight_bytes(self) -> int:
        """Of the whole head as it is stored."""
        others = (self.parameters - self._norms - self._projections) * self.precision.itemsize
        projections = self._projections * self.precision.itemsize
        if self.precision is Precision.INT8:
            projections = self._projections + 4 * sum(self._channels)
        return 4 * self._norms + projections + others

    def flop(self, images: int) -> Flop:
        """A call on so many images. Bilinear resizes are not counted."""
        features = self._features
        m1, m2, m3, m4 = self._areas
        unit = 2 * 9 * features * features
        per_image = (
            self.layout.P * self._projections
            # every position of a transposed convolution's input gives k x k outputs
            + self.layout.P * (16 * self._channels[0] ** 2 + 4 * self._channels[1] ** 2)
            + m4 * 9 * self._channels[3] ** 2
            + 9 * features * sum(area * c for area, c in zip(self._areas, self._channels, strict=True))
            + unit * (m4 + 2 * (m3 + m2 + m1))
            + features * features * (m3 + m2 + m1 + self._fused)
            + self._fused * 9 * features * self._inner
            + self._pixels * sum((9 * self._inner + count) * self._hidden for count in self._outputs)
        )
        return Flop(2 * images * per_image)

    def largest(self, images: int) -> int:
        """Elements of its largest tensor."""
        inputs = self.layout.N * self._read
        return images * max(inputs, self._fused * self._features, self._pixels * self._inner)

    @property
    def _features(self) -> int:
        return self.config.dpt_sizes.features

    @property
    def _inner(self) -> int:
        """Channels in front of the output layers."""
        return self._features // 2

    @property
    def _hidden(self) -> int:
        return self.config.dpt_sizes.hidden

    @property
    def _outputs(self) -> tuple[int, ...]:
        """Numbers of each pair of output layers."""
        return (self.numbers, 1) if self.config.dpt.has_sky else (self.numbers,)

    @property
    def _channels(self) -> tuple[int, int, int, int]:
        """Of the four maps."""
        return self.config.dpt_sizes.channels

    @property
    def _read(self) -> int:
        """Channels of a token that it reads."""
        return self.config.width if self.config.sees_alone else 2 * self.config.width

    @property
    def _areas(self) -> tuple[int, int, int, int]:
        """Positions of the four maps."""
        h, w = self.layout.h, self.layout.w
        return 16 * h * w, 4 * h * w, h * w, -(-h // 2) * -(-w // 2)

    @property
    def _fused(self) -> int:
        """Positions of the map that the four are fused to."""
        return 64 * self.layout.P

    @property
    def _pixels(self) -> int:
        return self.layout.H * self.layout.W

    @property
    def _norms(self) -> int:
        """The head's own, and the network's final one where it applies."""
        own = 2 * self._read if self.config.dpt.has_norm else 0
        return own + (0 if self.config.dpt.final_norm is FinalNorm.NOTHING else 2 * self.config.width)

    @property
    def _projections(self) -> int:
        """Matrices of the four layers from tokens to maps, without their biases."""
        return self._read * sum(self._channels)

    @property
    def _others(self) -> int:
        """Parameters after the projections: resizes, fusion, output."""
        features = self._features
        c1, c2, _, c4 = self._channels
        resizes = 16 * c1 * c1 + c1 + 4 * c2 * c2 + c2 + 9 * c4 * c4 + c4
        unit = 2 * (9 * features + 1) * features
        fusion = 7 * unit + 4 * (features + 1) * features
        inner, hidden = self._inner, self._hidden
        output = sum((9 * inner + 1) * hidden + (hidden + 1) * count for count in self._outputs)
        return resizes + 9 * features * sum(self._channels) + fusion + (9 * features + 1) * inner + output
