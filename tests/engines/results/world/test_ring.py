"""A ring of similarities closes, and its links give way by their variances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page4d_engines.results.world.ring import close_ring, exponential, logarithm
from page4d_engines.results.world.similarity import Similarity
from tests.engines.results.world.test_similarity import assert_same

NUMBERS = st.lists(st.floats(-1.7, 1.7), min_size=7, max_size=7).map(np.array)


def around(links):
    whole = Similarity.identity()
    for link in links:
        whole = whole.after(link)
    return whole


@settings(deadline=None, max_examples=100)
@given(NUMBERS)
def test_exponential_and_logarithm_undo_each_other(change):
    np.testing.assert_allclose(logarithm(exponential(change)), change, atol=1e-7)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 0.6, 0.8), (-0.6, 0, 0.8)])
@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, np.pi - 1e-5, np.pi])
def test_the_logarithm_holds_at_no_turn_and_at_half_a_turn(axis, angle):
    turned = exponential(np.concatenate([[1, 2, 3], angle * np.array(axis), [0.3]]))
    assert_same(exponential(logarithm(turned)), turned, 1e-7)


def test_a_ring_of_exact_links_stays_as_it_is():
    chance = np.random.default_rng(0)
    links = [exponential(chance.normal(size=7) * 0.3) for _ in range(5)]
    links.append(around(links).inverse())
    for closed, link in zip(close_ring(links, np.ones(6)), links, strict=True):
        assert_same(closed, link, 1e-9)


@pytest.mark.parametrize("n", [3, 12, 600])
def test_a_noisy_ring_closes_with_changes_of_the_noises_size(n):
    chance = np.random.default_rng(n)
    turn = exponential(np.array([1, 0, 0, 0, 0, 2 * np.pi / n, 0.0]))
    links = [turn.after(exponential(0.01 * chance.normal(size=7))) for _ in range(n)]
    closed = close_ring(links, np.ones(n))
    assert_same(around(closed), Similarity.identity(), 1e-8)
    change = [logarithm(link.inverse().after(new)) for link, new in zip(links, closed, strict=True)]
    assert np.abs(change).max() < 0.1


def test_what_a_ring_is_open_by_is_spread_evenly():
    links = [exponential(np.array([0, 0, 0, 0, 0, 0, logarithm])) for logarithm in (0.1, 0.2, 0.3, 0.4, -0.5)]
    closed = close_ring(links, np.ones(5))
    np.testing.assert_allclose([np.log(link.scale) for link in closed], [0, 0.1, 0.2, 0.3, -0.6], atol=1e-9)


def test_a_loose_link_takes_what_the_others_do_not():
    links = [exponential(np.array([0, 0, 0, 0, 0, 0, 0.1]))] * 3
    closed = close_ring(links, np.array([1.0, 1e4, 1.0]))
    assert abs(np.log(closed[0].scale) - 0.1) < 1e-3
    assert np.log(closed[1].scale) == pytest.approx(-0.2, abs=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_a_ring_that_is_far_open_ends_without_an_error(seed):
    chance = np.random.default_rng(seed)
    assert len(close_ring([exponential(4 * chance.normal(size=7)) for _ in range(5)], np.ones(5))) == 5
