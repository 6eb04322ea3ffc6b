"""Errors of depth, and of the mask in patches, against naive twins and known cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page4d_engines.results.scores.depth_scores import DepthTally
from page4d_engines.results.scores.mask_scores import MaskTally
from page4d_engines.results.scores.reference import moving_patches, shown_patches
from tests.engines.results.scores.naive import depth_errors


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_depth_is_that_of_a_naive_twin(rows, columns, images, seed):
    chance = np.random.default_rng(seed)
    tally, scaled, unscaled = DepthTally(), [], []
    for _ in range(images):
        truth = chance.uniform(0.5, 9, (rows, columns))
        depth = truth * chance.uniform(0.6, 1.6, truth.shape)
        depth[chance.random(truth.shape) < 0.2] = chance.choice([np.nan, 0.0, -1.0, np.inf])
        truth[chance.random(truth.shape) < 0.1] = np.nan
        tally.add(depth, truth, None)
        known = np.isfinite(depth) & (depth > 0) & np.isfinite(truth)
        if known.any():
            unscaled.append(depth_errors(depth, truth))
            scaled.append(depth_errors(depth * np.median(truth[known]) / np.median(depth[known]), truth))
    scores = tally.scores()
    assert scores.images == len(scaled)
    if scaled:
        assert (scores.abs_rel, scores.delta_125) == pytest.approx(tuple(np.mean(scaled, 0)))
        assert (scores.abs_rel_metric, scores.delta_125_metric) == pytest.approx(tuple(np.mean(unscaled, 0)))
    else:
        assert scores.abs_rel is None and set(tally.reasons) == set(scores.__struct_fields__[1:])


def test_depth_of_twice_the_truth_is_right_but_for_its_scale():
    truth = np.random.default_rng(0).uniform(1, 5, (6, 7))
    tally = DepthTally()
    tally.add(2 * truth, truth, None)
    scores = tally.scores()
    assert (scores.abs_rel, scores.delta_125) == (0.0, 1.0)
    assert (scores.abs_rel_metric, scores.delta_125_metric) == (1.0, 0.0)


def test_depth_in_a_unit_of_its_own_has_no_unscaled_score():
    tally = DepthTally()
    tally.add(np.ones((2, 2)), np.ones((2, 2)), "not in metres")
    scores = tally.scores()
    assert scores.abs_rel == 0 and scores.abs_rel_metric is None
    assert tally.reasons == {"abs_rel_metric": "not in metres", "delta_125_metric": "not in metres"}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_masks_are_those_of_a_naive_twin(rows, columns, seed):
    chance = np.random.default_rng(seed)
    tally, counts = MaskTally(), [0, 0, 0]
    for _ in range(2):
        moves, truth, shown = (chance.random((rows, columns)) < share for share in (0.5, 0.5, 0.8))
        tally.add(moves, truth, shown)
        for mine, true, counts_at_all in zip(moves.flat, truth.flat, shown.flat, strict=True):
            if counts_at_all:
                counts[0] += mine and true
                counts[1] += mine and not true
                counts[2] += true and not mine
    scores = tally.scores()
    hit, extra, missed = counts
    if sum(counts):
        assert scores.iou == pytest.approx(hit / sum(counts))
        assert scores.f1 == pytest.approx(2 * hit / (2 * hit + extra + missed))
    else:
        assert scores.iou is None and tally.reasons["f1"] == "no patch moves, in either"


def test_a_probability_of_a_half_moves_and_half_shown_patches_do_not_count():
    mask = np.repeat(np.repeat(np.array([[0.5, 0.49]], np.float32), 14, 0), 14, 1)
    assert moving_patches(mask).tolist() == [[True, False]]
    shown = np.ones((14, 28), bool)
    shown[0, 20] = False
    assert shown_patches(shown).tolist() == [[True, False]]
