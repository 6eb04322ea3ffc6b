"""Cameras' images to the engines' size on tensors of a GPU, through Triton's own compiler and launcher.

On a CPU in Triton's interpreter. The pack has the same kernels as machine code: `launcher.KernelLauncher` takes the
launches of a plan, with `Bytes.UINT8`.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from page4d.errors import UsageError
from page4d_plugins.launch_plan import Ref
from page4d_plugins.pixels import pixel_kernel
from page4d_plugins.pixels.pixel_launch import Picture, PixelKernel, Place, pixel_plan


def fitted(picture: Picture, place: Place, source: Tensor, chroma: Tensor | None = None) -> Tensor:
    """A camera's image at the engines' size, byte for byte as the CPU computes it.

    Args:
        picture: its format, size and pitches.
        place: where it lies in the engines' image.
        source: uint8, flat: `(height - 1) * pitch` and a row, or more.
        chroma: likewise the second plane of NV12 and NV21.

    Returns:
        uint8 `[H,W,3]`, RGB.

    Raises:
        UsageError: as `pixel_plan`, or tensors on no GPU.
    """
    if not triton.knobs.runtime.interpret and source.device.type != "cuda":
        raise UsageError(
            "the kernels of cameras' images run on a GPU", got=f"tensors on {source.device}", allowed="cuda"
        )
    plan = pixel_plan(picture, place)
    device, (width, height) = source.device, place.size
    target = torch.empty(height * width * 3, dtype=torch.uint8, device=device)
    workspace = torch.empty(plan.workspace, dtype=torch.uint8, device=device)
    tensors = {"source": source, "workspace": workspace, "target": target}
    tensors |= {name: torch.from_numpy(table).flatten().to(device) for name, table in plan.tables.items()}
    if chroma is not None:
        tensors["chroma"] = chroma
    for launch in plan.launches:
        values = {
            name: tensors[value.tensor][value.offset :] if isinstance(value, Ref) else value
            for name, value in launch.values.items()
        }
        function = getattr(pixel_kernel, launch.kernel.partition("_")[0])
        function[launch.grid](**values, **PixelKernel(launch.kernel).constants)
    return target.reshape(height, width, 3)
