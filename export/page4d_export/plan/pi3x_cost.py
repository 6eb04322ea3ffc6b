"""What Pi3X's convolutional heads and its metric head cost: multiply-adds and parameters from sizes alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from page4d.config import HEAD_BLOCKS, ModelConfig
from page4d.layout import Layout
from page4d.precision import Precision
from page4d_export.plan.cost import Flop

_DOUBLINGS = 3


@dataclass(frozen=True)
class ConvHeadCost:
    """Patch tokens to maps of all pixels. Its norms are float32 in every precision.

    Attributes:
        config: of the model; the head's sizes follow its width.
        layout: gives the maps' sizes.
        precision: of its convolutions.
        outputs: channels of each output block.
    """

    config: ModelConfig
    layout: Layout
    precision: Precision
    outputs: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Of the whole head."""
        return self._norms + self._others

    @property
    def weight_bytes(self) -> int:
        """Of the whole head as it is stored."""
        return 4 * self._norms + self.precision.itemsize * self._others

    def flop(self, images: int) -> Flop:
        """A call on so many images. Norms and the resize are not counted."""
        per_image = 0
        for level, (before, after) in enumerate(itertools.pairwise(self._widths)):
            area = 4**level * self.layout.P  # of its input; each place gives four
            per_image += 4 * area * ((before + 2) * after + self._convolutions(after))
        pixels = self.layout.H * self.layout.W
        per_image += pixels * sum(self._hidden * (9 * (self._widths[-1] + 2) + count) for count in self.outputs)
        return Flop(2 * images * per_image)

    def largest(self, images: int) -> int:
        """Elements of its largest tensor."""
        layout, last = self.layout, self._widths[-1]
        return images * max(2 * last * 4**_DOUBLINGS * layout.P, (last + 2) * layout.H * layout.W)

    @property
    def _widths(self) -> tuple[int, ...]:
        """Channels before the first doubling and after each."""
        width = self.config.width
        return (width, *(max(width // 4 >> step, 1) for step in range(_DOUBLINGS)))

    @property
    def _hidden(self) -> int:
        return max(self.config.width // 32, 1)

    @staticmethod
    def _convolutions(width: int) -> int:
        """Weights of a level's 3x3 convolutions: one, and two residual blocks of two."""
        return 9 * width * width * (1 + 2 * 2 * 2)

    @property
    def _norms(self) -> int:
        """Two in each of two residual blocks, of which the second is twice as wide."""
        return sum(2 * (2 + 4) * width for width in self._widths[1:])

    @property
    def _others(self) -> int:
        levels = sum(
            (4 * (before + 2) + 1) * after + self._convolutions(after) + (1 + 2 * (2 + 1)) * after
            for before, after in itertools.pairwise(self._widths)
        )
        first = (9 * (self._widths[-1] + 2) + 1) * self._hidden
        return levels + sum(first + (self._hidden + 1) * count for count in self.outputs)


@dataclass(frozen=True)
class MetricCost:
    """One learned token that reads all tokens of a clip. Float32 in every precision."""

    config: ModelConfig

    @property
    def parameters(self) -> int:
        """Of the whole head."""
        wide, half = 2 * self.config.width, self.config.width // 2
        block = 3 * 2 * half + 4 * (half + 1) * half + (8 * half + 5) * half
        return wide + 2 * (wide + 1) * half + HEAD_BLOCKS * block + (half + 1) * half + half + 1

    @property
    def weight_bytes(self) -> int:
        """Of the whole head as it is stored."""
        return 4 * self.parameters

    def flop(self, clips: int, tokens: int) -> Flop:
        """A call on clips of so many tokens."""
        wide, half = 2 * self.config.width, self.config.width // 2
        of_tokens = tokens * (wide * half + HEAD_BLOCKS * 2 * half * half)
        of_query = wide * half + HEAD_BLOCKS * 10 * half * half + half * half + half
        return clips * Flop(2 * (of_tokens + of_query), HEAD_BLOCKS * 4 * tokens * half)
