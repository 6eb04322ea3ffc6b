"""What a user chooses by name: enums that --help lists without loading the runtime."""

from __future__ import annotations

import enum


class Backend(str, enum.Enum):
    """What runs the engines. Anything but `auto` is a demand."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    CUDA = "cuda"
    TENSORRT = "tensorrt"

    def __str__(self) -> str:
        return self.value


CPU = "CPU"
"""The device of the backend `openvino` unless another is chosen, as OpenVINO names it."""


class PointsSource(str, enum.Enum):
    """What a point cloud is made from."""

    DEPTH = "depth"
    """Depth, cameras and intrinsics."""
    POINTS = "points"
    """The points head."""

    def __str__(self) -> str:
        return self.value


class Format(str, enum.Enum):
    """What a run's points and cameras are written as, for other programs."""

    PLY = "ply"
    """`points.ply`: the coloured points."""
    GLB = "glb"
    """`scene.glb`: points and camera frusta."""
    COLMAP = "colmap"
    """`colmap/`: a sparse model, as Gaussian splatting starts from."""
    NERFSTUDIO = "nerfstudio"
    """`transforms.json` and the points that it refers to."""
    NPZ = "npz"
    """`scene.npz`: every array of every image, for numpy."""

    def __str__(self) -> str:
        return self.value


class FitMode(str, enum.Enum):
    """What becomes of an aspect ratio that is not the engine's."""

    STRETCH = "stretch"
    """Each axis is scaled by itself: nothing is lost, shapes change."""
    CROP = "crop"
    """Scaled to cover the engine's size; what sticks out is cut off, the same on both sides."""
    PAD = "pad"
    """Scaled to lie inside the engine's size; black around it, the same on both sides."""
    PUBLISHED = "published"
    """As the model's public code does by default. VGGT, PAGE-4D and models without a way of their own: scaled to the
    engine's width, the height rounded to patches; of a height above the width the middle rows; photos of different
    sizes get white above and below. Depth Anything 3: the longer side scaled to 504 pixels, both rounded to patches; of
    photos of different sizes the middle."""
    PUBLISHED_PAD = "published-pad"
    """As VGGT's public code pads: the longer side scaled to a square engine's, the other rounded to patches; white
    around it."""

    def __str__(self) -> str:
        return self.value
