"""The rendered clip: its frames, masks, points and cameras must agree with each other."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from page4d import Layout
from page4d.cameras import fundamental, read_cameras
from page4d.errors import UsageError
from page4d.network.aggregator import centres
from page4d.network.attention import EpipolarPrior
from page4d_export.sample_scene.clip import Clip, render, save

T, V, W, H = 5, 3, 96, 72


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render(T, V, W, H)


def project(camera, points):
    """Pixels `[...,2]` and depths of world points."""
    seen = points @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
    image = seen @ camera.K.T
    return image[..., :2] / image[..., 2:], seen[..., 2]


def pixel_centres(width=W, height=H):
    y, x = np.mgrid[:height, :width]
    return np.stack([x + 0.5, y + 0.5], -1)


def test_shapes_and_dtypes(clip):
    assert (clip.frames.shape, clip.frames.dtype) == ((T, V, H, W, 3), np.uint8)
    assert (clip.masks.shape, clip.masks.dtype) == ((T, V, H, W), np.uint8)
    assert (clip.points.shape, clip.points.dtype) == ((T, V, H, W, 3), np.float64)
    assert list(clip.cameras) == ["cam0", "cam1", "cam2"]
    assert all((camera.width, camera.height) == (W, H) for camera in clip.cameras.values())


def test_points_lie_behind_their_own_pixel_centres(clip):
    for v, camera in enumerate(clip.cameras.values()):
        pixels, depth = project(camera, clip.points[:, v])
        assert (depth > 0).all()
        assert np.abs(pixels - pixel_centres()).max() < 1e-6


def test_cameras_stand_apart_and_look_at_one_place(clip):
    centres = np.stack([camera.centre for camera in clip.cameras.values()])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(centres) for b in centres[:i]) > 1
    for camera in clip.cameras.values():
        rotation = camera.world_to_camera[:, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12) and np.linalg.det(rotation) > 0
        pixel, depth = project(camera, np.zeros(3))
        assert depth > 0 and np.abs(pixel - (W / 2, H / 2)).max() < W / 4
        assert rotation[1, 2] < -0.5  # y points down, the world's z up


def test_points_seen_elsewhere_lie_on_their_epipolar_lines(clip):
    lines_of = fundamental(clip.cameras.values())
    for a in range(V):
        points = clip.points[0, a].reshape(-1, 3)
        pixels = np.concatenate([pixel_centres().reshape(-1, 2), np.ones((W * H, 1))], 1)
        for b, camera in enumerate(clip.cameras.values()):
            if a == b:
                continue
            other, depth = project(camera, points)
            lines = pixels @ lines_of[a, b].T
            apart = (lines[:, :2] * other).sum(1) + lines[:, 2]
            apart /= np.linalg.norm(lines[:, :2], axis=1)
            assert np.abs(apart[depth > 0.1]).max() < 1e-6


def test_views_see_the_same_surfaces(clip):
    """A point projected into another view is what that view's pixel shows there, or is hidden by something nearer."""
    footprint = 0.16  # metres: how far two points under one pixel can lie apart on a slanted surface
    for a in range(V):
        for b, camera in enumerate(clip.cameras.values()):
            pixels, depth = project(camera, clip.points[0, a])
            x, y = np.floor(np.where(depth[..., None] > 0, pixels, -1)).astype(int).transpose(2, 0, 1)
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            assert inside.mean() > 0.3, "the views overlap"
            shown = clip.points[0, b][y[inside], x[inside]]
            same = np.linalg.norm(shown - clip.points[0, a][inside], axis=1) < footprint
            _, shown_depth = project(camera, shown)
            nearer = shown_depth < depth[inside]
            assert same.mean() > 0.6
            assert (same | nearer).mean() > 0.97


def test_static_pixels_show_the_same_point_at_all_times(clip):
    static = (clip.masks == 0).all(0)
    assert (clip.points[:, static] == clip.points[0, static]).all()
    moved = (clip.masks[0] > 0) | (clip.masks[1] > 0)
    assert (np.abs(clip.points[0] - clip.points[1])[moved].max(-1) > 1e-3).mean() > 0.9


def test_masks_are_two_valued_and_change(clip):
    assert set(np.unique(clip.masks)) == {0, 255}
    share = (clip.masks > 0).mean((2, 3))
    assert (share > 0.005).all() and (share < 0.3).all()
    for t in range(1, T):
        assert (clip.masks[t] != clip.masks[t - 1]).any((1, 2)).all()


def test_colours_are_textured_and_follow_the_movement(clip):
    grey = clip.frames.astype(float).mean(-1)
    assert 60 < grey.mean() < 200 and grey.std() > 25
    assert ((clip.frames == 0) | (clip.frames == 255)).mean() < 0.05
    changed = np.abs(clip.frames[1].astype(int) - clip.frames[0]).max(-1) > 24
    moving = (clip.masks[0] > 0) | (clip.masks[1] > 0)
    assert changed[moving].mean() > 5 * changed[~moving].mean()
    far = (clip.points[0, ..., 2] > 2.2) & ~moving  # high on the walls: no shadow of a moving thing gets there
    assert far.any() and (clip.frames[0][far] == clip.frames[1][far]).all()


def test_same_arguments_same_clip_and_times_do_not_depend_on_T(clip):
    again = render(2, V, W, H)
    assert (again.frames == clip.frames[:2]).all() and (again.points == clip.points[:2]).all()
    assert (again.masks == clip.masks[:2]).all()


def test_seed_changes_scene_and_cameras(clip):
    other = render(1, V, W, H, seed=3)
    assert (other.frames[0] != clip.frames[0]).mean() > 0.5
    assert (other.cameras["cam0"].K != clip.cameras["cam0"].K).any()


@pytest.mark.parametrize(("views", "width", "height"), [(1, 40, 64), (2, 1, 1), (9, 50, 14)])
def test_any_size_and_number_of_cameras(views, width, height):
    clip = render(1, views, width, height)
    assert np.isfinite(clip.points).all() and len(clip.cameras) == views
    for v, camera in enumerate(clip.cameras.values()):
        assert np.abs(project(camera, clip.points[0, v])[0] - pixel_centres(width, height)).max() < 1e-6


@pytest.mark.parametrize("name", ["T", "V", "width", "height"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(UsageError, match=rf"clip's {name} is too small\n  got: +0\n  allowed: 1 or more"):
        render(**{"T": 1, "V": 1, "width": 8, "height": 8, name: 0})


def test_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed is negative"):
        render(1, 1, 8, 8, seed=-1)


def test_save_writes_what_was_rendered(clip, tmp_path):
    save(clip, tmp_path / "new" / "clip")
    root = tmp_path / "new" / "clip"
    assert sorted(path.name for path in root.iterdir()) == ["cameras.json", "depth", "frames", "masks"]
    for v, name in enumerate(clip.cameras):
        assert sorted(path.name for path in (root / "frames" / name).iterdir()) == [f"{t:06d}.png" for t in range(T)]
        for t in range(T):
            assert (np.asarray(Image.open(root / "frames" / name / f"{t:06d}.png")) == clip.frames[t, v]).all()
            assert (np.asarray(Image.open(root / "masks" / name / f"{t:06d}.png")) == clip.masks[t, v]).all()
    read = read_cameras(root / "cameras.json")
    assert list(read) == list(clip.cameras)
    for name, camera in clip.cameras.items():
        for field in dataclasses.fields(camera):
            assert np.array_equal(getattr(read[name], field.name), getattr(camera, field.name))


def test_true_correspondences_lie_in_the_epipolar_band():
    """A patch's surface, seen from another camera, lies in a patch that the prior leaves alone.

    Most patches it does not leave alone."""
    layout = Layout(1, 3, 112, 154)
    clip = render(layout.T, layout.V, layout.W, layout.H)
    fitted = torch.from_numpy(fundamental(clip.cameras.values()))
    prior = EpipolarPrior(fitted, centres(layout).double(), band=14.0, penalty=4.0)
    cameras, checked = list(clip.cameras.values()), 0
    for a in range(layout.V):
        bias = prior.bias(a)
        assert 0.3 < float((bias < 0).double().mean()) < 0.95
        for y in range(layout.h):
            for x in range(layout.w):
                point = clip.points[0, a, 14 * y + 7, 14 * x + 7]  # half a pixel from the patch's centre
                for b, camera in enumerate(cameras):
                    u, v, depth = camera.K @ (camera.world_to_camera[:, :3] @ point + camera.world_to_camera[:, 3])
                    column, row = int(u / depth // 14), int(v / depth // 14)
                    if a != b and depth > 0 and 0 <= column < layout.w and 0 <= row < layout.h:
                        query, key = (
                            layout.special + y * layout.w + x,
                            b * layout.N + layout.special + row * layout.w + column,
                        )
                        assert bias[query, key] == 0
                        checked += 1
    assert checked > 100
