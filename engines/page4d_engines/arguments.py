"""The arguments of a pipeline's calls, checked before anything is copied."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from page4d.cameras import Camera, cameras_from_mapping, fundamental
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.manifest import Manifest
from page4d.published import QUATERNION_NUMBERS
from page4d_engines.backend import Backend

_MOST_THREADS = 1024
_SLACK = 1e-5  # beyond 0 and 1, for means that were rounded


def images_argument(value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 RGB of exactly one shape.

    Raises:
        UsageError: anything else.
    """
    allowed = f"uint8 {list(shape)}"
    array = _array("images", value, allowed)
    if array.dtype != np.uint8:
        got = array.dtype if isinstance(value, np.ndarray) else f"{type(value).__name__}, as numpy {array.dtype}"
        raise UsageError("images have the wrong type", got=got, allowed=allowed)
    _require_shape("images", array, shape, allowed)
    return array


def map_argument(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers from 0 to 1, one per patch, or one for all patches.

    Raises:
        UsageError: another shape, no real numbers, NaN, or numbers outside.
    """
    allowed = f"float32 {list(shape)} in [0, 1]"
    array = _numbers(name, value, allowed)
    if array.ndim:
        _require_shape(name, array, shape, allowed)
    low, high = array.min(), array.max()  # NaN, if any number is
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        hint = "divide by 255" if 1 < high <= 255 and low >= 0 else None
        raise UsageError(
            f"{name} holds numbers that are no probabilities",
            got=f"{low} to {high}",
            allowed="0 to 1, none of them NaN",
            hint=hint,
        )
    return array


def present_argument(value: ArrayLike | None, manifest: Manifest) -> NDArray[np.uint8] | None:
    """1 for the images that are there, 0 for the others, `[T,V]`; None where all are.

    Raises:
        UsageError: another shape, other values, a clip without any image, or absent images for engines that need all.
    """
    if value is None:
        return None
    layout = manifest.layout
    allowed = f"bool or uint8 {list(layout.image_map_shape)}, 1 for the images that are there and 0 for the others"
    array = _array("present", value, allowed)
    if array.dtype.kind not in "bui":
        raise UsageError("present has the wrong type", got=array.dtype, allowed=allowed)
    _require_shape("present", array, layout.image_map_shape, allowed)
    if not np.isin(array, (0, 1)).all():
        raise UsageError(
            "present has other values than 0 and 1", got=f"{array.min()} to {array.max()}", allowed=allowed
        )
    if array.all():
        return None
    if not manifest.takes_present:
        raise UsageError(
            "these engines need every image",
            got=f"{np.count_nonzero(array == 0)} absent images",
            allowed="engines that go without the images of a lost camera",
            hint="page4d-export --absent-views",
        )
    if not array.reshape(layout.B, -1).any(1).all():
        raise UsageError("no image of a clip is there", got="present all 0", allowed="at least one image in each clip")
    return array.astype(np.uint8)


def finite_argument(name: str, value: ArrayLike, target: NDArray[Any]) -> NDArray[Any]:
    """Finite numbers of a buffer's shape that its type can hold.

    Raises:
        UsageError: another shape, no real numbers, or some that are not finite or too large.
    """
    allowed = f"{target.dtype.name} {list(target.shape)}"
    array = _numbers(name, value, allowed)
    _require_shape(name, array, target.shape, allowed)
    largest = float(np.finfo(target.dtype).max) if target.dtype.kind == "f" else float(np.finfo(np.float32).max)
    low, high = float(array.min()), float(array.max())
    if not (low >= -largest and high <= largest):
        raise UsageError(
            f"{name} holds numbers that are not finite, or too large",
            got=f"{low} to {high}",
            allowed=f"finite {allowed}",
        )
    return array


def lines_argument(cameras: object, layout: Layout) -> ArrayLike:
    """The fundamental matrices `[V,V,3,3]` of a rig, or the array that was passed as such.

    Raises:
        UsageError: none; another number of cameras than views; something that is no camera, or one of images of another
            size.
    """
    if cameras is None:
        raise UsageError(
            "these engines have the epipolar prior and need the calibration of every view",
            allowed=f"{layout.V} cameras",
        )
    if not isinstance(cameras, Mapping) and hasattr(cameras, "__array__"):
        return cameras
    return fundamental(rig_argument(cameras, layout, f"fundamental matrices {list(layout.fundamental_shape)}").values())


def poses_argument(cameras: object, layout: Layout) -> ArrayLike:
    """The array `[V,9]` that was passed as the camera encoder's input.

    Raises:
        UsageError: none, or something else than an array.
    """
    if cameras is None:
        raise UsageError(
            "these engines were exported with --known-cameras and need the calibration of every view",
            allowed=f"{layout.V} cameras",
        )
    if not hasattr(cameras, "__array__"):
        raise _no_mapping(cameras, layout, f"their encoding [{layout.V}, {QUATERNION_NUMBERS}]")
    return cameras


def rig_argument(cameras: object, layout: Layout, otherwise: str | None = None) -> dict[str, Camera]:
    """A camera for each view, by name and in the order of the views.

    Args:
        cameras: what was passed.
        layout: of the engines.
        otherwise: what else may be passed, for the error.

    Raises:
        UsageError: another number of cameras than views; something that is no camera, or one of images of another size.
    """
    if not isinstance(cameras, Mapping):
        raise _no_mapping(cameras, layout, otherwise)
    if len(cameras) != layout.V:
        raise UsageError("the number of cameras is not the engines'", got=len(cameras), allowed=layout.V)
    for name, entry in cameras.items():
        if not isinstance(entry, Mapping | Camera):
            raise UsageError(
                f"camera {name} is no camera",
                got=type(entry).__name__,
                allowed="a mapping with width, height, K, world_to_camera",
            )
    rig = cameras_from_mapping(cameras)
    for name, camera in rig.items():
        if (camera.width, camera.height) != (layout.W, layout.H):
            raise UsageError(
                f"camera {name} is of images of another size than the engines see",
                got=f"{camera.width}x{camera.height}",
                allowed=f"{layout.W}x{layout.H}",
                hint="scale width, height and K as the images were scaled",
            )
    return rig


def _no_mapping(cameras: object, layout: Layout, otherwise: str | None) -> UsageError:
    allowed = f"{layout.V} cameras, each with width, height, K, world_to_camera"
    allowed += f"; or {otherwise}" if otherwise else ""
    return UsageError("cameras are no mapping of names to cameras", got=type(cameras).__name__, allowed=allowed)


def shared_argument(shared: object, T: int) -> int:
    """A number of timesteps, 0 to T - 1.

    Raises:
        UsageError: anything else.
    """
    allowed = f"0 to {T - 1}"
    try:
        count = -1 if isinstance(shared, bool | np.bool_) else operator.index(shared)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if not 0 <= count < T:
        raise UsageError(
            "a clip shares a part of its times with the one before", got=f"shared = {_shown(shared)}", allowed=allowed
        )
    return count


def backend_argument(name: Backend | str) -> Backend:
    """A backend by its name.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return Backend(name)
    except ValueError:
        raise UsageError("there is no such backend", got=_shown(name), allowed=", ".join(map(str, Backend))) from None


def require_threads(threads: object) -> None:
    """Raise unless this is a number of threads, or None.

    Raises:
        UsageError: anything else.
    """
    if threads is not None and not (type(threads) is int and 1 <= threads <= _MOST_THREADS):
        raise UsageError(
            "this is no number of threads", got=_shown(threads), allowed=f"1 to {_MOST_THREADS}, or None for all CPUs"
        )


def _array(name: str, value: ArrayLike, allowed: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever the object's own conversion raises: a ragged list, a tensor on a GPU
        raise UsageError(
            f"{name} cannot be made an array", got=f"{type(value).__name__}: {str(error)[:200]}", allowed=allowed
        ) from None


def _numbers(name: str, value: ArrayLike, allowed: str) -> NDArray[Any]:
    array = _array(name, value, allowed)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "buif":
        got = array.dtype if isinstance(value, np.ndarray) else f"{type(value).__name__}, as numpy {array.dtype}"
        raise UsageError(f"{name} holds no real numbers", got=got, allowed=allowed)
    return array


def _require_shape(name: str, array: NDArray[Any], shape: tuple[int, ...], allowed: str) -> None:
    if array.shape != shape:
        raise UsageError(f"{name} has another shape than the engines'", got=list(array.shape), allowed=allowed)


def _shown(value: object) -> str:
    """A value that may be anything, in a message."""
    try:
        return repr(value)[:100]
    except Exception:  # an object's own
        return type(value).__name__
