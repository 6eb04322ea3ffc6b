"""Fewer points: one to a voxel, and only so many, against what is written point by point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.cloud_thinning import Candidates, CloudThinning
from tests.support.examples import examples


def scene(seed, count, H=6, W=7):
    """Images with some candidates each; confidences repeat."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        points = rng.normal(0, 1, (H, W, 3)).astype(np.float32)
        confidence = rng.integers(0, 5, (H, W)).astype(np.float32)
        yield Candidates(rng.random((H, W)) < rng.random(), points, confidence)


def thinned(images, **options):
    thinning = CloudThinning.of(iter(images), CloudOptions(**options))
    return [thinning.kept(index, image.kept) for index, image in enumerate(images)]


def naive_voxels(images, side):
    """The first of the most confident candidates of each voxel."""
    best = {}
    for index, image in enumerate(images):
        for row, column in zip(*np.nonzero(image.kept), strict=True):
            voxel = tuple(np.floor(image.points[row, column].astype(np.float64) / side))
            if voxel not in best or image.confidence[row, column] > best[voxel][0]:
                best[voxel] = (image.confidence[row, column], index, row, column)
    kept = [np.zeros_like(image.kept) for image in images]
    for _, index, row, column in best.values():
        kept[index][row, column] = True
    return kept


@examples(60)
@given(seed=st.integers(0, 9999), count=st.integers(0, 6), side=st.floats(0.01, 5))
def test_each_voxel_keeps_its_most_confident_point(seed, count, side):
    images = list(scene(seed, count))
    for kept, expected in zip(thinned(images, voxel=side), naive_voxels(images, side), strict=True):
        assert np.array_equal(kept, expected)


@examples(60)
@given(seed=st.integers(0, 9999), count=st.integers(0, 6), most=st.integers(1, 200), side=st.none() | st.floats(0.1, 2))
def test_the_most_points_are_kept_and_every_image_keeps_its_share(seed, count, most, side):
    images = list(scene(seed, count))
    all_kept = [image.kept for image in images] if side is None else naive_voxels(images, side)
    kept = thinned(images, max_points=most, voxel=side)
    total = sum(int(image.sum()) for image in all_kept)
    assert sum(int(image.sum()) for image in kept) == min(most, total)
    for some, whole in zip(kept, all_kept, strict=True):
        assert not (some & ~whole).any()
        if total > most:
            assert abs(some.sum() - whole.sum() * most / total) < 1


def test_the_points_that_are_kept_are_spread_evenly():
    whole = Candidates(np.ones((100, 120), np.bool_), np.zeros((100, 120, 3)), np.ones((100, 120)))
    (kept,) = thinned([whole], max_points=1200)
    in_cells = kept.reshape(10, 10, 12, 10).sum((1, 3))
    assert kept.sum() == 1200 and in_cells.min() >= 7 and in_cells.max() <= 13  # 10 on average
    assert kept.sum(0).max() < 20 and kept.sum(1).max() < 24  # no rows or columns of points


def test_the_same_images_are_thinned_in_the_same_way():
    images = list(scene(3, 4))
    first, second = (thinned(images, max_points=40, voxel=0.4) for _ in range(2))
    assert all(np.array_equal(*both) for both in zip(first, second, strict=True))


@pytest.mark.parametrize("options", [{}, {"max_points": 10**9}])
def test_nothing_is_left_out_where_nothing_has_to_be(options):
    images = list(scene(1, 3))
    assert all(np.array_equal(kept, image.kept) for kept, image in zip(thinned(images, **options), images, strict=True))
