"""Windows of the rendered scene as a network gives them: each in a world of its own, with errors that are known."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from page4d.layout import Layout
from page4d.manifest import PointsFrame
from page4d.network.poses import inverse_pose
from page4d_engines.clip.fit import Fit
from page4d_engines.options import PointsSource
from page4d_engines.pipeline import Result
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.confidence import Threshold
from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.world.ring import exponential
from page4d_engines.results.world.sampled_window import SampledWindow
from page4d_export.sample_scene.clip import render, render_view, rig
from page4d_export.sample_scene.scene import Scene

CHOICE = CloudChoice(PointsSource.POINTS, "confidence", Threshold(0.1))


@dataclass(frozen=True)
class TrueClip:
    """Points `[frames,V,H,W,3]` of the world, and poses `[frames,V,4,4]`, camera to world; exact, in metres."""

    points: np.ndarray
    cameras: np.ndarray

    @property
    def count(self):
        return len(self.points)


@dataclass(frozen=True)
class Errors:
    """What a network gets wrong: standard deviations; lengths are shares of the depth."""

    depth: float = 0.0
    """Of all depths of an image together."""
    pixel: float = 0.0
    degrees: float = 0.0
    """Of a camera's rotation."""
    shift: float = 0.0
    """Of a camera's position."""
    growing: float = 0.0
    """By how much of themselves the errors are larger after a hundred frames."""
    wild: float = 0.0
    """Share of pixels whose point is anywhere, with the same confidence as others."""


@functools.cache
def moving_camera(count, turns=1.0, width=56, height=42, seed=0):
    """One camera that goes around the scene while things move; after a whole turn it sees its begin again."""
    scene, (camera,) = Scene(seed), rig(1, width, height, seed)
    points, cameras = np.empty((count, 1, height, width, 3)), []
    for t in range(count):
        here = turned(camera, 2 * np.pi * turns * t / (count - 1))
        blank = np.empty((1, height, width, 3), np.uint8), np.empty((1, height, width), np.uint8)
        render_view(scene, here, *blank, points[t], first=t)
        cameras.append(here)
    return TrueClip(points, poses(cameras)[:, None])


@functools.cache
def static_rig(count, V, width=56, height=42, seed=0):
    """V cameras that stand still while things move."""
    clip = render(count, V, width, height, seed)
    return TrueClip(clip.points, np.broadcast_to(poses(clip.cameras.values()), (count, V, 4, 4)))


def turned(camera, angle):
    """The camera, gone around the scene's vertical axis."""
    c, s = np.cos(angle), np.sin(angle)
    pose = camera.world_to_camera.copy()
    pose[:, :3] = pose[:, :3] @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return dataclasses.replace(camera, world_to_camera=pose)


def poses(cameras):
    """Camera to world, `[n,4,4]`."""
    rows = np.stack([camera.world_to_camera for camera in cameras])
    last = np.broadcast_to([[[0.0, 0.0, 0.0, 1.0]]], (len(rows), 1, 4))
    return inverse_pose(np.concatenate([rows, last], 1))


def random_world(chance):
    """From a window's world to the true one."""
    change = np.concatenate([3 * chance.normal(size=3), 0.8 * chance.normal(size=3), 0.4 * chance.normal(size=1)])
    return exponential(change)


def window_result(clip, frames, world, errors=None, chance=None):
    """What a network such as Pi3 gives of some frames, in any order.

    Args:
        clip: the truth.
        frames: their numbers.
        world: from the window's world to the true one.
        errors: of the network; None: none.
        chance: that these come from.
    """
    errors, chance = errors or Errors(), chance or np.random.default_rng(0)
    frames = list(frames)
    points, cameras = clip.points[frames], clip.cameras[frames]
    seen = (points - cameras[..., None, None, :3, 3]) @ cameras[..., None, :3, :3]  # rows: the inverse rotation
    more = (1 + errors.growing * np.array(frames) / 100)[:, None]
    lead = cameras.shape[:2]
    factor = np.exp(more * errors.depth * chance.normal(size=lead))[..., None, None]
    factor = factor * (1 + more[..., None, None] * errors.pixel * chance.normal(size=seen.shape[:-1]))
    seen = seen * factor[..., None]
    typical = np.median(seen[..., 2])
    wild = chance.random(seen.shape[:-1]) < errors.wild
    seen[wild] = typical * (chance.normal(size=(wild.sum(), 3)) + np.array([0, 0, 3]))
    estimated = np.array(cameras)
    for place in np.ndindex(*lead):
        size = more[place[0], 0]
        turn = exponential(
            np.concatenate([np.zeros(3), size * np.radians(errors.degrees) * chance.normal(size=3), [0]])
        )
        estimated[place][:3, :3] = estimated[place][:3, :3] @ turn.rotation
        estimated[place][:3, 3] += size * errors.shift * typical * chance.normal(size=3)
    back = world.inverse()
    shape = seen.shape[:-1]
    return Result(
        mask=None,
        layers={},
        memory=None,
        points=(back.scale * seen).astype(np.float32),
        confidence=(3 + chance.normal(size=shape)).astype(np.float32),
        camera=back.of_pose(estimated),
        points_frame=PointsFrame.CAMERA,
    )


def sampled(clip, frames, world, errors=None, chance=None):
    """As `window_result`, as much of it as an alignment takes."""
    result = window_result(clip, frames, world, errors, chance)
    T, V, H, W = result.points.shape[:4]
    fits = [Fit.choose((W, H), Layout(T, V, H, W), None)] * (T * V)
    return SampledWindow.of(WindowGeometry(result, fits, CHOICE, CloudOptions()))
