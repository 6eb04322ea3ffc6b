"""Calibration out of a bag: `sensor_msgs/CameraInfo`, which has no poses."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d_engines.clip.bags.bag import Bag
from page4d_engines.clip.bags.frame import BagFrame
from page4d_engines.clip.names import listed

_HALF = 0.5  # ROS counts pixels from the centre of the first, page4d from its edge


def calibration_of(bag: Bag, names: Sequence[str], frames: Sequence[BagFrame]) -> tuple[dict[str, Camera], list[str]]:
    """The cameras' calibration, at identity poses; and notes about it.

    Args:
        bag: the bag.
        names: of the cameras.
        frames: one of each camera.

    Returns:
        The calibration by the cameras' names, empty unless every camera has one of its images' size; and sentences.

    Raises:
        UsageError: the bag is damaged.
    """
    known: dict[str, Camera] = {}
    distorted: list[str] = []
    for name, frame in zip(names, frames, strict=True):
        topic = _info_topic(frame.topic)
        if topic not in bag.topics("CameraInfo"):
            continue
        info = next((message for _, message in bag.messages(topic)), None)
        if info is None or (info.width, info.height) != frame.size:
            continue
        rectified = "rect" in _base(frame.topic).rpartition("/")[2]
        K = np.array(info.p, np.float64).reshape(3, 4)[:, :3] if rectified else np.array(info.k).reshape(3, 3)
        K = K + np.array([[0, 0, _HALF], [0, 0, _HALF], [0, 0, 0]])
        values = {"width": info.width, "height": info.height, "K": K, "world_to_camera": np.eye(4)[:3]}
        try:
            known[name] = Camera.from_mapping(name, values)
        except UsageError:
            continue  # zeros stand for "not calibrated"
        if not rectified and np.any(info.d):
            distorted.append(name)
    if len(known) < len(names):
        return {}, []
    note = f"lenses distort, by their CameraInfo, and the images are not rectified: {listed(distorted)}"
    return known, [note] if distorted else []


def _base(topic: str) -> str:
    """The topic of images that a compressed one belongs to."""
    return re.sub(r"/(compressed|compressedDepth)$", "", topic)


def _info_topic(topic: str) -> str:
    return f"{_base(topic).rpartition('/')[0]}/camera_info"
