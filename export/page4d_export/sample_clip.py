"""`SampleClip`: the inputs that an export is verified and calibrated on, rendered or read from a folder of frames."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera, fundamental
from page4d.layout import Layout
from page4d.network.known_cameras import KnownCameras
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_export.sample_scene.clip import render

Values = dict[str, NDArray[np.generic]]
"""Tensors by name."""


@dataclass(frozen=True)
class SampleClip:
    """The inputs of a window, by the names that stages read them by."""

    values: Values
    described: str

    @classmethod
    def rendered(cls, layout: Layout) -> SampleClip:
        """The rendered clip: frames, true masks, cameras; the frames' brightness stands in for keypoints."""
        side = max(layout.H, layout.W)
        scale = max(1, round(side / 256))  # rendered smaller and fitted like any other clip
        size = (max(layout.W // scale, 1), max(layout.H // scale, 1))
        fit = Fit.choose(size, layout, FitMode.STRETCH)
        clips = [render(layout.T, layout.V, *size, seed=seed) for seed in range(layout.B)]
        frames = np.concatenate([clip.frames.reshape(-1, *clip.frames.shape[2:]) for clip in clips])
        masks = np.concatenate([clip.masks.reshape(-1, *clip.masks.shape[2:]) for clip in clips])
        images = np.stack([fit.image(Image.fromarray(frame)) for frame in frames])
        mask_ext = np.stack([fit.patch_mean(mask) for mask in masks])
        brightness = np.stack([fit.patch_mean(frame.mean(-1).astype(np.uint8)) for frame in frames])
        rig = [fit.camera(camera) for camera in clips[0].cameras.values()]
        values: Values = {
            "images": images.reshape(layout.images_shape),
            "mask_ext": mask_ext.reshape(layout.patch_map_shape),
            "keypoints": brightness.reshape(layout.patch_map_shape),
            "fundamental": fundamental(rig).astype(np.float32),
            "cameras": _encoded(rig, layout),
            "present": _one_absent(layout),
        }
        return cls(values, "a rendered clip")

    @classmethod
    def read(cls, folder: FrameFolder, layout: Layout, last: bool = False) -> SampleClip:
        """A clip's first views and timesteps, as many as the layout has, with its masks, keypoints and cameras.

        Args:
            folder: the clip.
            layout: of the window.
            last: read the last window instead of the first, of those that follow each other without overlap.
        """
        whole = dataclasses.replace(layout, V=len(folder.camera_names))
        reader = WindowReader(
            folder, whole, FitMode.STRETCH, folder.keypoint_files is not None, folder.cameras is not None
        )
        starts = windows(folder.count, layout.T, layout.T)
        with contextlib.closing(reader.read(starts[-1:] if last else starts[:1])) as read:
            _, inputs = next(read)
        images = inputs.images[:, : layout.V]
        brightness = (
            images.reshape(layout.images, layout.h, layout.PATCH, layout.w, layout.PATCH, 3).mean((2, 4, 5)) / 255
        )
        keypoints = (
            brightness.reshape(layout.patch_map_shape).astype(np.float32)
            if inputs.keypoints is None
            else inputs.keypoints[:, : layout.V]
        )
        values: Values = {
            "images": images,
            "mask_ext": inputs.mask_ext[:, : layout.V],
            "keypoints": keypoints,
            "present": _one_absent(layout),
        }
        if inputs.fundamental is not None:
            values["fundamental"] = inputs.fundamental[: layout.V, : layout.V]
        if folder.cameras is not None:
            cameras = list(folder.cameras.values())[: layout.V]
            values["cameras"] = _encoded([reader.fit(0, v).camera(camera) for v, camera in enumerate(cameras)], layout)
        is_another = last and len(starts) > 1
        return cls(values, f"{folder.path.name}, its last window" if is_another else folder.path.name)


def _one_absent(layout: Layout) -> NDArray[np.uint8]:
    """Which images are there, `[T,V]`, for engines that take it: all but one of each clip, the first of the first clip,
    the second of the second; so another image gets the first one's special tokens."""
    present = np.ones((layout.B, layout.frames), np.uint8)
    if layout.frames > 1:
        clips = np.arange(layout.B)
        present[clips, clips % layout.frames] = 0
    return present.reshape(layout.image_map_shape)


def _encoded(rig: Sequence[Camera], layout: Layout) -> NDArray[np.float32]:
    """Cameras of the layout's images as a camera encoder reads them, `[V,9]`."""
    return KnownCameras.of(rig).encoded(layout.H, layout.W).astype(np.float32)
