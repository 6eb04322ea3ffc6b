"""A similarity composes, inverts, and is found again from points, however noisy, wild or degenerate they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d_engines.results.world.similarity import Similarity, robust_fit

COORDINATES = st.floats(-100, 100)


def rotation_of(vector):
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@st.composite
def similarities(draw):
    vector = np.array([draw(st.floats(-1.8, 1.8)) for _ in range(3)])
    translation = np.array([draw(COORDINATES) for _ in range(3)])
    return Similarity(draw(st.floats(0.01, 100)), rotation_of(vector), translation)


def cloud(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


def assert_same(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a.scale, b.scale, rtol=tolerance)
    np.testing.assert_allclose(a.rotation, b.rotation, atol=tolerance)
    size = 1 + np.abs(b.translation).max() + b.scale
    np.testing.assert_allclose(a.translation, b.translation, atol=tolerance * size)


TURN = Similarity(2.5, rotation_of(np.array([0.3, -1.1, 0.7])), np.array([4.0, -5.0, 6.0]))


@settings(deadline=None, max_examples=60)
@given(similarities(), similarities(), st.integers(0, 1000))
def test_composition_is_one_map_after_the_other_and_the_inverse_undoes_it(a, b, seed):
    points = cloud(20, seed)
    np.testing.assert_allclose(a.after(b).of_points(points), a.of_points(b.of_points(points)), rtol=1e-9, atol=1e-6)
    back = a.inverse().of_points(a.of_points(points))
    np.testing.assert_allclose(back, points, atol=1e-6 * max(1, 1 / a.scale))
    assert_same(Similarity.from_numbers(a.numbers), a, 1e-15)


@settings(deadline=None, max_examples=60)
@given(similarities(), st.integers(3, 40), st.integers(0, 1000))
def test_exact_points_give_their_similarity(truth, n, seed):
    points = cloud(n, seed)
    for fit in (Similarity.closest, Similarity.robust):
        estimate = fit(points, truth.of_points(points), np.linspace(0.1, 3, n))
        np.testing.assert_allclose(estimate.of_points(points), truth.of_points(points), atol=1e-7 * (1 + truth.scale))


def test_a_pose_moves_as_its_points_do_and_keeps_a_rotation():
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_of(np.array([0.1, 0.2, 0.3])), (1, 2, 3)
    moved = TURN.of_pose(pose)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
    seen = cloud(5)
    in_world = TURN.of_points(seen @ pose[:3, :3].T + pose[:3, 3])
    np.testing.assert_allclose((TURN.scale * seen) @ moved[:3, :3].T + moved[:3, 3], in_world, atol=1e-12)
    assert np.isnan(TURN.of_pose(np.full((4, 4), np.nan))[:3]).all()
    np.testing.assert_array_equal(Similarity.identity().of_pose(pose), pose)


def test_weights_count():
    source, target = cloud(30), TURN.of_points(cloud(30))
    target[:10] += 50
    weights = np.ones(30)
    weights[:10] = 0
    assert_same(Similarity.closest(source, target, weights), TURN)
    weights[:10] = np.nan
    assert_same(Similarity.closest(source, target, weights), TURN)
    assert abs(Similarity.closest(source, target).scale - TURN.scale) > 0.01


def test_values_that_are_not_finite_take_no_part():
    source, target = cloud(30), TURN.of_points(cloud(30))
    source[3], target[7, 1] = np.nan, np.inf
    fit = robust_fit(source, target)
    assert_same(fit.similarity, TURN)
    assert fit.used == 28


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_wild_outliers_do_not_move_the_robust_fit(share):
    chance, n = np.random.default_rng(1), 2000
    source = cloud(n)
    target = TURN.of_points(source) + 0.01 * chance.normal(size=(n, 3))
    wild = chance.random(n) < share
    target[wild] = 40 * chance.normal(size=(wild.sum(), 3)) + 100
    fit = robust_fit(source, target)
    assert_same(fit.similarity, TURN, 2e-3)
    assert abs(fit.share - (1 - share)) < 0.15
    assert fit.error < 0.05


def test_a_second_body_that_moved_by_itself_is_left_out():
    source = cloud(1000)
    target = TURN.of_points(source)
    target[:300] += [1.0, 0.5, 0]
    assert_same(robust_fit(source, target).similarity, TURN)


def test_noise_in_both_leaves_the_robust_scale_unbiased():
    chance, scales, shrunk = np.random.default_rng(2), [], []
    for _ in range(20):
        points = cloud(500, int(chance.integers(1 << 30)))
        source, target = (points + 0.2 * chance.normal(size=points.shape) for _ in range(2))
        scales.append(Similarity.robust(source, target).scale)
        shrunk.append(Similarity.closest(source, target).scale)
    assert abs(np.mean(scales) - 1) < 0.005
    assert np.mean(shrunk) < 0.97, "least squares shrinks: what the robust fit avoids"


def test_points_of_a_plane_determine_a_proper_rotation():
    source = cloud(50)
    source[:, 2] = 0
    for fit in (Similarity.closest, Similarity.robust):
        estimate = fit(source, TURN.of_points(source))
        assert_same(estimate, TURN)
        assert np.linalg.det(estimate.rotation) == pytest.approx(1)


def test_a_mirrored_cloud_gets_a_rotation_and_no_reflection():
    source = cloud(50)
    estimate = Similarity.closest(source, source * [1, 1, -1])
    assert np.linalg.det(estimate.rotation) == pytest.approx(1)
    assert estimate.scale > 0


LINE = np.outer(np.arange(10.0), [1.0, 2.0, 3.0]) + 5


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (LINE, "10 on a line"),
        (np.ones((10, 3)), "10 in one place"),
        (np.ones((1, 3)), "1 of them"),
        (np.zeros((0, 3)), "0 of them"),
        (np.full((10, 3), np.nan), "0 of them"),
    ],
)
@pytest.mark.parametrize("fit", [Similarity.closest, Similarity.robust])
def test_points_that_determine_nothing_are_refused(fit, source, got):
    with pytest.raises(UsageError) as error:
        fit(source, TURN.of_points(source))
    assert error.value.got == got


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(UsageError, match="do not go together"):
        Similarity.closest(np.zeros((4, 3)), np.zeros((5, 3)))


def test_large_coordinates_keep_their_digits():
    source = cloud(100) + 1e6
    fit = robust_fit(source, TURN.of_points(source))
    np.testing.assert_allclose(fit.similarity.of_points(source), TURN.of_points(source), atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 60.0, 179.9, 180.0])
def test_its_angle(degrees):
    turned = Similarity(3.0, rotation_of(np.radians(degrees) * np.array([0.6, 0.0, 0.8])), np.zeros(3))
    assert turned.degrees == pytest.approx(degrees, abs=1e-5)
