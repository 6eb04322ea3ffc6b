"""`ShownImage`: a camera as a viewer draws it: where it stands, what it sees, and its photo, small."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d_engines.results.finished.posed_image import PosedImage

_WIDTH = 320  # of a photo in a frustum, in pixels: hundreds of them have to fit into a browser
_QUALITY = 85


@dataclass(frozen=True)
class ShownImage:
    """The part of a photo that the engine saw, without what it was padded with.

    Attributes:
        name: as `cameras.json` has it.
        camera_name: of its view.
        frame_name: of its timestep.
        t, v: timestep and view in the clip.
        pose: float64 `[4,4]`, camera to world (x right, y down, z forward); None where it is not known.
        fov: vertical field of view, in radians; None where no focal length is known.
        aspect: width by height, as its pixels are: of square ones in the world.
        size: width and height that the engine saw, in pixels.
        distance: of the surfaces before it, their median, in the scene's unit; NaN where unknown.
        jpeg: the photo, at most `_WIDTH` pixels wide.
    """

    name: str
    camera_name: str
    frame_name: str
    t: int
    v: int
    pose: NDArray[np.float64] | None
    fov: float | None
    aspect: float
    size: tuple[int, int]
    distance: float
    jpeg: bytes

    @classmethod
    def of(cls, image: PosedImage) -> ShownImage:
        """Of an image of a finished run."""
        left, top, width, height = image.fit.target
        pose = image.calibration.camera_to_world
        fx, fy = np.diag(image.fit.camera(image.calibration.camera).K)[:2].tolist()
        has_focal = math.isfinite(fx) and math.isfinite(fy) and fx > 0 and fy > 0
        picture = Image.fromarray(image.pixels[top : top + height, left : left + width])
        picture.thumbnail((_WIDTH, _WIDTH))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=_QUALITY)
        return cls(
            name=image.name,
            camera_name=image.camera_name,
            frame_name=image.frame_name,
            t=image.t,
            v=image.v,
            pose=pose if np.isfinite(pose).all() else None,
            fov=2 * math.atan(height / 2 / fy) if has_focal else None,
            aspect=(width / fx) / (height / fy) if has_focal else width / height,
            size=(width, height),
            distance=_median(image.depth, image.kept),
            jpeg=content.getvalue(),
        )

    def photo(self) -> NDArray[np.uint8]:
        """RGB, uint8 `[h,w,3]`."""
        return np.asarray(Image.open(io.BytesIO(self.jpeg)).convert("RGB"))

    def fov_in(self, aspect: float) -> float:
        """Vertical field of view of a picture of another aspect that shows all that the camera sees; radians."""
        fov = self.fov or math.pi / 3
        return 2 * math.atan(math.tan(fov / 2) * max(1.0, self.aspect / aspect))


def _median(depth: NDArray[np.float32] | None, kept: NDArray[np.bool_]) -> float:
    """Of the depths that count; NaN where there are none."""
    if depth is None:
        return math.nan
    usable = np.isfinite(depth) & (depth > 0)
    values = depth[usable & kept] if (usable & kept).any() else depth[usable]
    return float(np.median(values)) if values.size else math.nan
