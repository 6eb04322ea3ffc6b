"""A finished run whose results are true: the geometry of the rendered scene, in the form of a network's heads.

The scene's world is the clip's. Every array is what a perfect network would give, so whatever is made of the run can be
compared with the scene itself.
"""

import dataclasses
import pathlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from page4d import __version__
from page4d.cameras import Camera, write_cameras
from page4d.layout import Layout
from page4d.manifest import PointsFrame
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_engines.options import FitMode
from page4d_engines.pipeline import Result
from page4d_engines.results.made_by import MadeBy, frames_hash, inputs_hash
from page4d_engines.results.report import write_report
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.given_heads import GivenHeads
from page4d_engines.results.summary import SUMMARY, Summary, write_summary
from page4d_engines.results.window_writer import WindowWriter
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.world_summary import AlignmentSummary
from page4d_export.sample_scene.clip import millimetres, render_view, rig
from page4d_export.sample_scene.scene import Scene, trace, unit

SURE = 4.0
"""Confidence of every pixel: a logit in Pi3's form, VGGT's own number in the other."""


@dataclass(frozen=True)
class TrueRun:
    """A finished run, and the truth; arrays are the engine's H x W, lengths metres.

    Attributes:
        out: the run's output folder.
        frames: the clip's folder: `frames/`, `masks/`, `depth/`, `cameras.json` (where the cameras stand still).
        summary: as `out` has it.
        cameras: of the photos, `[T][V]`.
        points: float64 `[T,V,H,W,3]`, world, of what the pixels' rays meet.
        depth: float64 `[T,V,H,W]`.
        moving: bool `[T,V,H,W]`.
        worlds: of each window, from its own world to the scene's.
    """

    out: pathlib.Path
    frames: pathlib.Path
    summary: Summary
    cameras: list
    points: np.ndarray
    depth: np.ndarray
    moving: np.ndarray
    worlds: list


def write_true_run(
    folder,
    form="pi3",
    T=2,
    V=3,
    size=(84, 112),
    photo_size=None,
    fit=None,
    window=None,
    stride=None,
    worlds=None,
    aligned=False,
    noise=0.0,
    mask=False,
    orbit=0.0,
    seed=0,
    options=None,
):
    """Render the scene, and write the clip and a finished run over it.

    Args:
        folder: an empty folder; the clip is written to `clip` in it, the run to `out`.
        form: `pi3`, points in cameras with cameras and a logit; or `vggt`, depth with cameras and intrinsics.
        T, V: of the clip.
        size: height and width of the engine's images.
        photo_size: width and height of the photos; None: the engine's.
        fit: a `FitMode` or its name; None: the photos have the engine's aspect ratio.
        window: timesteps of a window; None: all.
        stride: of the windows; None: without overlap.
        worlds: a `Similarity` for each window, from the window's own world to the scene's; None: they are the same.
        aligned: whether the summary says so: the windows then share the scene's world.
        noise: standard deviation of the depth, as a share of it.
        mask: whether there is a mask: of each patch the share that moves.
        orbit: radians that the cameras turn around the scene from one timestep to the next.
        seed: of the scene and the noise.
        options: `CloudOptions` of the run; None: the defaults.
    """
    folder = pathlib.Path(folder)
    fit = None if fit is None else FitMode(fit)
    layout = Layout(T=window or T, V=V, H=size[0], W=size[1])
    width, height = photo_size or (layout.W, layout.H)
    options = options or CloudOptions()
    scene = Scene(seed)
    cameras = [[_turned(camera, orbit * t) for camera in _centred(rig(V, width, height, seed))] for t in range(T)]
    clip = _write_clip(folder / "clip", scene, cameras)

    loose = UngroupedImages.of(layout)
    frames = FrameFolder.open(clip, loose=loose)
    reader = WindowReader(frames, layout, fit, False, False)
    half = 0.5 if form == "pi3" else 0.0  # VGGT's depth is that of pixels' corners, as the project makes points of it
    points, depth, moving = _geometry(scene, cameras, reader, half)
    spans = windows(T, layout.T, stride or layout.T)
    worlds = list(worlds or [Similarity.identity()] * len(spans))
    model = {"published": "page4d" if mask and form == "vggt" else form}

    out = folder / "out"
    out.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    written = []
    choice = None
    for span, world, (_, inputs) in zip(spans, worlds, reader.read(spans), strict=True):
        rows = slice(span.start, span.stop)
        result = _result(form, reader, cameras, points[rows], depth[rows], span, world, noise, chance)
        if mask:
            result = dataclasses.replace(result, mask=_patch_means(moving[rows]))
        choice = CloudChoice.asked(GivenHeads.of_result(result, model), options)
        writer = WindowWriter(out, reader, len(spans) == 1, choice, options)
        summary, _ = writer.write(span, inputs, result, 1.0, with_pictures=False)
        if aligned:
            summary = type(summary)(**{**_fields(summary), "world": world.numbers})
        written.append(summary)
    summary = _summary(clip, frames, model, layout, written, fit, stride or layout.T, options, aligned)
    write_summary(out / SUMMARY, summary)
    write_report(out, summary, {})
    return TrueRun(
        out=out,
        frames=clip,
        summary=summary,
        cameras=cameras,
        points=points,
        depth=depth,
        moving=moving,
        worlds=worlds,
    )


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _centred(cameras):
    """With the principal point in the middle of the image, where Pi3's points are fitted with it."""
    for camera in cameras:
        K = camera.K.copy()
        K[:2, 2] = camera.width / 2, camera.height / 2
        yield Camera(camera.width, camera.height, K, camera.world_to_camera)


def _turned(camera, angle):
    """Around the scene's vertical axis."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    pose = camera.world_to_camera.copy()
    pose[:, :3] = pose[:, :3] @ turn
    return Camera(camera.width, camera.height, camera.K, pose)


def _write_clip(folder, scene, cameras):
    for t, row in enumerate(cameras):
        for v, camera in enumerate(row):
            shape = (1, camera.height, camera.width)
            frames, masks, points = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8), np.empty((*shape, 3))
            render_view(scene, camera, frames, masks, points, first=t)
            depth = millimetres(points, camera)
            for kind, image in (("frames", frames[0]), ("masks", masks[0]), ("depth", depth[0])):
                place = folder / kind / f"cam{v}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place / f"{t:06d}.png")
    if all(np.array_equal(row[0].world_to_camera, cameras[0][0].world_to_camera) for row in cameras):
        write_cameras(folder / "cameras.json", {f"cam{v}": camera for v, camera in enumerate(cameras[0])})
    return folder


def _geometry(scene, cameras, reader, half):
    """What the engine's pixels show: points, depth, whether it moves."""
    H, W = reader.layout.H, reader.layout.W
    shape = (len(cameras), len(cameras[0]), H, W)
    points, depth, moving = np.empty((*shape, 3)), np.empty(shape), np.empty(shape, bool)
    for t, row in enumerate(cameras):
        for v, photo_camera in enumerate(row):
            camera = reader.fit(t, v).camera(photo_camera)
            y, x = np.mgrid[:H, :W].reshape(2, -1) + half
            rays = unit(
                np.stack([x, y, np.ones(x.size)], 1) @ np.linalg.inv(camera.K).T @ camera.world_to_camera[:, :3]
            )
            far, near = (trace(shapes, camera.centre, rays)[0] for shapes in (scene.static, scene.moving(t)))
            moving[t, v] = (near < far).reshape(H, W)
            points[t, v] = (camera.centre + rays * np.minimum(near, far)[:, None]).reshape(H, W, 3)
            depth[t, v] = (points[t, v] - camera.centre) @ camera.world_to_camera[2, :3]
    return points, depth, moving


def _result(form, reader, cameras, points, depth, span, world, noise, chance):
    """What a perfect network gives of a window, in the window's own world."""
    to_window = world.inverse()
    pose = np.zeros((*depth.shape[:2], 4, 4))
    K = np.zeros((*depth.shape[:2], 3, 3))
    for row, t in enumerate(span):
        for v, camera in enumerate(cameras[t]):
            pose[row, v] = np.eye(4)
            pose[row, v, :3, :3], pose[row, v, :3, 3] = camera.world_to_camera[:, :3].T, camera.centre
            K[row, v] = reader.fit(t, v).camera(camera).K
    in_cameras = np.einsum("tvji,tvhwj->tvhwi", pose[..., :3, :3], points - pose[..., None, None, :3, 3])
    off = 1 + noise * chance.standard_normal(depth.shape)
    camera = to_window.of_pose(pose)
    sure = np.full(depth.shape, SURE, np.float32)
    if form == "pi3":
        in_window = (in_cameras * off[..., None] * to_window.scale).astype(np.float32)
        return Result(None, {}, None, points=in_window, confidence=sure, camera=camera, points_frame=PointsFrame.CAMERA)
    in_window = (depth * off * to_window.scale).astype(np.float32)
    return Result(None, {}, None, depth=in_window, depth_confidence=sure, camera=camera, intrinsics=K)


def _patch_means(moving):
    T, V, H, W = moving.shape
    patches = moving.reshape(T, V, H // Layout.PATCH, Layout.PATCH, W // Layout.PATCH, Layout.PATCH)
    return patches.mean((3, 5)).astype(np.float32)


def _summary(clip, frames, model, layout, written, fit, stride, options, aligned):
    made_by = MadeBy(
        manifest="0" * 64,
        inputs=inputs_hash(frames),
        stride=stride,
        fit=None if fit is None else str(fit),
        **_fields(options),
    )
    return Summary(
        page4d=__version__,
        engines="engines",
        frames=str(clip),
        model=model,
        weights="true geometry",
        layout=dataclasses.asdict(layout),
        precision="float32",
        backend="onnxruntime",
        cameras=list(frames.camera_names),
        windows=written,
        stage_seconds={"encoder": 1.0},
        stage_flop={"encoder": 1},
        decode_seconds=0.1,
        write_seconds=0.1,
        wall_seconds=2.0,
        startup_seconds=0.5,
        buffer_bytes=1,
        peak_rss_bytes=1,
        made_by=made_by,
        frame_files=frames_hash(frames),
        alignment=AlignmentSummary() if aligned else None,
    )
