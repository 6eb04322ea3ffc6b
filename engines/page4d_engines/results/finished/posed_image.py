"""`PosedImage`: one image of a finished run with its photo, camera, points, depth, confidence and mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d_engines.clip.fit import Fit
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.results.scene.calibration import Calibration


@dataclass(frozen=True)
class PosedImage:
    """One image; its arrays are the engine's H x W, lengths in the scene's unit.

    Attributes:
        name: as `cameras.json` has it: `<camera>/<frame>`, a camera, a frame or a photo.
        photo: path of the photo under the clip's folder, with `/` and suffix: `cam0/000000.png`. The frames of a video
            are called as if they lay in a folder of its name: `cam0/000012.png`.
        camera_name: of its view.
        frame_name: of its timestep.
        t, v: timestep and view in the clip.
        window: name of the window that it is from.
        fit: how the photo came to the engine's size.
        pixels: what the engine saw, RGB, uint8 `[H,W,3]`.
        calibration: the camera of the photo as it is on disk, in its pixels; NaN where a pose or focal length is not
            known.
        points: float32 `[H,W,3]`, in the scene's world; NaN where unknown.
        depth: float32 `[H,W]`, z in the camera; None where the engines give none.
        confidence: float32 `[H,W]`, of the points, NaN beside a padded photo; None where the engines give none.
        mask: float32 `[H,W]`, the probability that a pixel is dynamic, each patch's for all of its pixels; None where
            the engines give none.
        kept: bool `[H,W]`, the pixels that are points of the cloud.
        clip: that the photo is of.
    """

    name: str
    photo: str
    camera_name: str
    frame_name: str
    t: int
    v: int
    window: str
    fit: Fit
    pixels: NDArray[np.uint8]
    calibration: Calibration
    points: NDArray[np.float32]
    depth: NDArray[np.float32] | None
    confidence: NDArray[np.float32] | None
    mask: NDArray[np.float32] | None
    kept: NDArray[np.bool_]
    clip: FrameFolder = field(repr=False)

    def photo_pixels(self) -> NDArray[np.float64]:
        """Where the middle of each pixel lies in the photo, x and y, float64 `[H,W,2]`; pixel edges are at integers."""
        y, x = np.mgrid[: self.fit.layout.H, : self.fit.layout.W] + 0.5
        return (np.stack([x, y], -1) - self.fit.shift) / self.fit.scale

    def source(self) -> Image.Image:
        """The photo, RGB, upright: turned as its file says.

        Raises:
            UsageError: the file cannot be decoded, or is no longer of the size that it was.
        """
        return self.clip.image(self.t, self.v)
