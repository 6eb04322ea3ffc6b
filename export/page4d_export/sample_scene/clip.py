"""`Clip`: a moving scene seen by calibrated cameras, ray cast in numpy, with exact masks, surface points and cameras.

For demonstrations, examples and tests that need frames whose geometry is known; no footage has to be shipped.
"""

from __future__ import annotations

import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d.cameras import Camera, write_cameras
from page4d.errors import UsageError
from page4d_export.sample_scene.paint import Floats
from page4d_export.sample_scene.scene import SAMPLES, Scene, Surface, display, trace, unit


@dataclass(frozen=True)
class Clip:
    """A scene of T timesteps seen by V static cameras.

    Attributes:
        frames: RGB, uint8 `[T,V,H,W,3]`.
        masks: uint8 `[T,V,H,W]`, 255 where the pixel's centre shows a surface that moves, else 0.
        points: float64 `[T,V,H,W,3]`, world coordinates, in metres (z up), of the surface seen through the pixel's
            centre (x + 0.5, y + 0.5).
        cameras: by name, in the order of the views.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    points: Floats
    cameras: dict[str, Camera]


def render(T: int, V: int, width: int, height: int, seed: int = 0) -> Clip:
    """Render the scene: a room with boxes and balls at rest, and three things that move.

    A frame depends on its timestep, not on T; the same arguments give the same clip.

    Args:
        T: timesteps, 24 to a second.
        V: cameras, on an arc around the scene, all looking at its middle.
        width, height: of every image, in pixels.
        seed: varies colours, places, movements and the cameras.

    Raises:
        UsageError: a size below 1, a seed below 0.
    """
    for name, value in (("T", T), ("V", V), ("width", width), ("height", height)):
        if value < 1:
            raise UsageError(f"a clip's {name} is too small", got=value, allowed="1 or more")
    if seed < 0:
        raise UsageError("a clip's seed is negative", got=seed, allowed="0 or more")
    scene = Scene(seed)
    cameras = {f"cam{v}": camera for v, camera in enumerate(rig(V, width, height, seed))}
    frames = np.empty((T, V, height, width, 3), np.uint8)
    masks = np.empty((T, V, height, width), np.uint8)
    points = np.empty((T, V, height, width, 3))

    def view(v: int) -> None:
        render_view(scene, cameras[f"cam{v}"], frames[:, v], masks[:, v], points[:, v])

    # numpy releases the interpreter's lock; only a few threads, since each holds the surfaces of its view
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(view, range(V)))
    return Clip(frames, masks, points, cameras)


def render_view(
    scene: Scene, camera: Camera, frames: NDArray[np.uint8], masks: NDArray[np.uint8], points: Floats, first: int = 0
) -> None:
    """Fill one camera's frames `[T,H,W,3]`, masks `[T,H,W]` and points `[T,H,W,3]`, from timestep `first` on."""
    origin = camera.centre
    centre = _rays(camera, 0.5, 0.5)
    reach, _ = trace(scene.static, origin, centre)
    samples = []
    for part, offset in enumerate(SAMPLES):
        rays = _rays(camera, *offset)
        far, which = trace(scene.static, origin, rays)
        surface = Surface.of(scene.static, which, origin + rays * far[:, None], origin, part)
        samples.append((rays, far, surface, display(surface.colour())))
    for t in range(len(frames)):
        moving = scene.moving(first + t)
        near, _ = trace(moving, origin, centre)
        near = np.where(near < reach, near, np.inf)
        masks[t] = np.where(np.isfinite(near), 255, 0).reshape(masks[t].shape)
        points[t] = (origin + centre * np.minimum(near, reach)[:, None]).reshape(frames[t].shape)
        light = np.zeros((camera.height * camera.width, 3))
        for part, (rays, far, surface, at_rest) in enumerate(samples):
            colour = at_rest.copy()
            near_by = surface.touched(moving)
            colour[near_by] = display(surface.among(moving, near_by))
            near, which = trace(moving, origin, rays)
            front = np.flatnonzero(near < far)
            hits = origin + rays[front] * near[front, None]
            colour[front] = display(Surface.of([*moving, *scene.static], which[front], hits, origin, part).colour())
            light += colour
        frames[t] = np.rint(light * (255 / len(SAMPLES))).astype(np.uint8).reshape(frames[t].shape)


def save(clip: Clip, folder: str | os.PathLike[str]) -> None:
    """Write a clip as `frames/<camera>/<frame>.png`, `masks/` and `depth/` with the same names, and `cameras.json`.

    Frames are named 000000, 000001, ... Depth is z in the camera in millimetres, 16-bit grey; 0 is none.
    """
    root = pathlib.Path(folder)
    depth = np.stack([millimetres(clip.points[:, v], camera) for v, camera in enumerate(clip.cameras.values())], 1)
    for kind, images in (("frames", clip.frames), ("masks", clip.masks), ("depth", depth)):
        for v, camera in enumerate(clip.cameras):
            place = root / kind / camera
            place.mkdir(parents=True, exist_ok=True)
            for t, image in enumerate(images[:, v]):
                Image.fromarray(image).save(place / f"{t:06d}.png")
    write_cameras(root / "cameras.json", clip.cameras)


def millimetres(points: Floats, camera: Camera) -> NDArray[np.uint16]:
    """z in the camera of points `[..,3]`, as a depth image has it."""
    z = (points - camera.centre) @ camera.world_to_camera[2, :3]
    return np.rint(z * 1000).clip(0, 65535).astype(np.uint16)


def rig(V: int, width: int, height: int, seed: int) -> list[Camera]:
    """V cameras on an arc of at most 88 degrees, looking at the middle; no two alike."""
    chance = np.random.default_rng((seed, 1))
    span = np.deg2rad(min(88.0, 30.0 * (V - 1)))
    cameras = []
    for angle in np.linspace(-span / 2, span / 2, V) if V > 1 else (0.0,):
        away, up = 6.2 + chance.uniform(-0.15, 0.15), 2.75 + chance.uniform(-0.3, 0.3)
        place = np.array([away * np.sin(angle), -away * np.cos(angle), up])
        forward = unit(np.array([0.0, 0.15, 0.62]) - place)
        right = unit(np.cross(forward, np.array([0.0, 0.0, 1.0])))
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal = 1.12 * max(width, height) * chance.uniform(0.97, 1.03)
        middle = np.array([width, height]) * (0.5 + chance.uniform(-0.015, 0.015, 2))
        K = np.array([[focal, 0.0, middle[0]], [0.0, focal * 1.001, middle[1]], [0.0, 0.0, 1.0]])
        cameras.append(Camera(width, height, K, np.concatenate([rotation, -rotation @ place[:, None]], 1)))
    return cameras


def _rays(camera: Camera, dx: float, dy: float) -> Floats:
    """Unit directions `[H*W,3]` in the world through the points (x + dx, y + dy) of all pixels."""
    y, x = np.mgrid[: camera.height, : camera.width].reshape(2, -1)
    pixels = np.stack([x + dx, y + dy, np.ones(x.size)], 1)
    return unit(pixels @ (np.linalg.inv(camera.K).T @ camera.world_to_camera[:, :3]))
