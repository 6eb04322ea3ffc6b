"""What every tensor of a load is checked for, before the first is written."""

from __future__ import annotations

import torch

from page4d.checkpoints.checkpoint import Checkpoint
from page4d.checkpoints.stored.stored_model import DA3_TOKEN
from page4d.checkpoints.weight_parts import Part
from page4d.errors import UsageError
from page4d.model import Page4D
from page4d.network.encoder import MEAN, STD
from page4d.published import Published

_ROUNDED = 2e-3  # bfloat16's rounding of such numbers


def check_shapes(model: Page4D, part: Part) -> None:
    """Check that a part's tensors are there, and of the shapes that the model's parameters have.

    Raises:
        UsageError: one is not.
    """
    if part.source is None:
        return
    width = model.config.width
    expected = {key: tuple(model.get_parameter(name).shape) for name, key in part.takes.items()}
    special = {
        "register_token": (1, 1, 5, width),
        "aggregator.camera_token": (1, 2, 1, width),
        "aggregator.register_token": (1, 2, 4, width),
        DA3_TOKEN: (1, 2, width),
    }
    expected |= {key: special[key] for key in part.joined}
    for key, shape in expected.items():
        stored = part.source.shapes.get(key)
        if stored is None:
            holds = f"{part.source.depth} layers and {part.source.encoder_depth} encoder blocks"
            raise UsageError(
                f"{part.source.name} lacks {key}",
                got=f"no such tensor; the file holds {holds}",
                allowed=f"{key} of shape {list(shape)}",
                hint=f"another file, or a model that needs no more than {holds}",
            )
        if stored != shape:
            raise UsageError(
                f"{part.source.name}: {key} has another shape than the model's", got=list(stored), allowed=list(shape)
            )


def check_statistics(source: Checkpoint) -> None:
    """Check that a file of Pi3X was trained on images normalised as the encoder normalises them.

    Raises:
        UsageError: it was not.
    """
    expected = {"image_mean": MEAN, "image_std": STD} if source.published is Published.PI3X else {}
    for name, tensor in source.read([name for name in expected if name in source.shapes]):
        values = tensor.flatten().tolist()
        if len(values) != len(MEAN) or any(abs(a - b) > _ROUNDED for a, b in zip(values, expected[name], strict=True)):
            raise UsageError(
                f"{source.name}: {name} is not ImageNet's, by which images are normalised",
                got=", ".join(f"{value:.4g}" for value in values[:4]),
                allowed=", ".join(map(str, expected[name])),
                hint="weights that were trained on images normalised by these numbers",
            )


def check_finite(part: Part) -> None:
    """Check that a part's tensors hold finite numbers alone.

    Raises:
        UsageError: one does not, or is no plain tensor.
    """
    if part.source is None:
        return
    for key, tensor in part.source.read([*part.joined, *dict.fromkeys(part.takes.values())]):
        # a float64 that is too large for float32 would become infinite
        values = tensor.float() if tensor.dtype == torch.float64 else tensor
        broken = tensor.numel() - int(torch.isfinite(values).sum())
        if broken:
            raise UsageError(
                f"{part.source.name}: {key} holds numbers that are not finite",
                got=f"{broken} of {tensor.numel()} are NaN or infinite, or too large for float32",
                allowed="finite numbers",
                hint="download it again; if it is the same, training diverged",
            )
