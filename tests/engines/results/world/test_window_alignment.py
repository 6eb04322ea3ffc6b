"""Windows of the rendered scene come into one world, whatever a network gets wrong; loops close."""

import dataclasses
import weakref

import numpy as np
import pytest

from page4d_engines.clip.window_reader import windows
from page4d_engines.results.world import loop
from page4d_engines.results.world.loop import ClosingWindow, close_loop
from page4d_engines.results.world.window_alignment import WindowAlignment
from tests.support.world.drift import ERRORS, aligned, chained_by_camera, chained_by_frame, drift, run
from tests.support.world.true_windows import Errors, moving_camera, random_world, sampled, static_rig

COUNT, T, STRIDE = 25, 4, 3


@pytest.fixture(scope="module")
def clip():
    return moving_camera(COUNT)


@pytest.fixture(scope="module")
def pair_of_cameras():
    return static_rig(7, 2)


@pytest.mark.parametrize("stride", [1, 3])
def test_exact_windows_get_their_worlds(clip, stride):
    case = run(clip, T, stride, Errors())
    alignment = aligned(case)
    off = drift(case, alignment.worlds)
    assert off.scale < 1e-4 and off.degrees < 0.01 and off.distance < 1e-4
    summary = alignment.summary()
    assert summary.overlap == T - stride and summary.error < 1e-5
    assert summary.drift_degrees < 0.01 and summary.drift_shift < 1e-4
    assert {pair.fitted_to for pair in summary.pairs} == {"points"} and not alignment.warnings()


def test_several_cameras_that_stand_still_are_aligned_while_things_move(pair_of_cameras):
    case = run(pair_of_cameras, 3, 2, Errors())
    off = drift(case, aligned(case).worlds)
    assert off.scale < 1e-4 and off.distance < 1e-4


def test_wild_pixels_do_not_move_a_world(clip):
    case = run(clip, T, STRIDE, Errors(pixel=0.01, wild=0.3))
    alignment = aligned(case)
    off = drift(case, alignment.worlds)
    assert off.scale < 0.02 and off.distance < 0.02
    assert drift(case, chained_by_frame(case)).distance > 0.2, "least squares follows them"
    assert all(pair.agreeing < 0.85 and pair.error < 0.03 for pair in alignment.summary().pairs)


def test_drift_is_less_than_that_of_naive_chains(clip):
    """Over seeds, since a single clip may be lucky; with three shared frames, since of one no way knows more."""
    cases = [run(clip, 6, 3, ERRORS, seed) for seed in range(6)]

    def typical(worlds_of):
        return np.sqrt(np.mean([drift(case, worlds_of(case)).distance ** 2 for case in cases]))

    ours = typical(lambda case: aligned(case).worlds)
    assert ours < 0.9 * typical(chained_by_camera)
    assert ours < 0.2 * typical(chained_by_frame)


def test_an_image_without_a_pose_leaves_the_other_shared_ones(pair_of_cameras):
    case = run(pair_of_cameras, 3, 2, Errors())
    alignment = WindowAlignment()
    for number, (window, part) in enumerate(zip(case.windows, case.parts, strict=True)):
        part.points[:, 0], part.cameras[:, 0] = np.nan, np.nan
        alignment.add(f"{number}", window, part)
    assert drift(case, alignment.worlds).scale < 1e-4
    assert {pair.summary.fitted_to for pair in alignment.pairs} == {"points"}


def test_points_of_a_world_are_aligned_without_any_camera(clip):
    case = run(clip, T, STRIDE, Errors())
    alignment = WindowAlignment()
    for number, (window, part) in enumerate(zip(case.windows, case.parts, strict=True)):
        alignment.add(f"{number}", window, dataclasses.replace(part, cameras=None))
    assert drift(case, alignment.worlds).distance < 1e-3
    assert alignment.summary().drift_degrees is None


def test_windows_without_a_finite_point_go_by_cameras_and_without_those_are_named(clip):
    case = run(clip, T, 1, Errors())
    for part, also_cameras in ((case.parts[2], False), (case.parts[6], True)):
        part.points[:] = np.nan
        if also_cameras:
            part.cameras[:] = np.nan
    alignment = aligned(case)
    kinds = [pair.summary.fitted_to for pair in alignment.pairs[:7]]
    assert kinds == ["points", "cameras", "cameras", "points", "points", "nothing", "nothing"]
    by_cameras, lost = alignment.warnings()
    assert "window_2, window_3" in by_cameras and "window_6, window_7" in lost
    assert (
        drift(
            dataclasses.replace(case, windows=case.windows[:6], parts=case.parts[:6], truth=case.truth[:6]),
            alignment.worlds[:6],
        ).distance
        < 0.01
    )


def test_of_earlier_windows_nothing_is_kept(clip):
    alignment, gone = WindowAlignment(), []
    world = random_world(np.random.default_rng(0))
    for number, window in enumerate(windows(COUNT, T, STRIDE)):
        part = sampled(clip, window, world)
        gone.append(weakref.ref(part.points))
        alignment.add(f"{number}", window, part)
        del part
    alive = [number for number, points in enumerate(gone) if points() is not None]
    assert alive == [0, len(gone) - 1], "the first window, for a loop, and the last one"


def test_a_loop_takes_away_most_of_the_drift(clip):
    cases = [run(clip, T, STRIDE, ERRORS, seed, loop=True) for seed in range(4)]
    open_ends, closed_ends = [], []
    for case in cases:
        alignment = aligned(case)
        worlds, loop = close_loop(alignment, case.closing)
        assert loop.closed and loop.seen_again > 0.5
        assert loop.after.distance < loop.before.distance and loop.after.degrees < loop.before.degrees
        open_ends.append(drift(case, alignment.worlds).last)
        closed_ends.append(drift(case, worlds).last)
    assert np.mean(closed_ends) < 0.5 * np.mean(open_ends)


def test_an_exact_loop_changes_nothing(clip):
    case = run(clip, T, STRIDE, Errors(), loop=True)
    worlds, loop = close_loop(aligned(case), case.closing)
    assert loop.closed and loop.before.distance < 1e-4
    assert drift(case, worlds).distance < 1e-4


def test_a_break_in_the_chain_is_what_a_loop_mends(clip):
    case = run(clip, T, STRIDE, Errors(), loop=True)
    case.parts[3].points[0], case.parts[3].cameras[0] = np.nan, np.nan  # what it shares with the window before
    alignment = aligned(case)
    assert alignment.pairs[2].summary.fitted_to == "nothing"
    worlds, loop = close_loop(alignment, case.closing)
    assert loop.closed
    assert drift(case, alignment.worlds).last > 0.1
    assert drift(case, worlds).last < 0.01


def test_a_ring_that_its_changes_do_not_close_stays_as_it_was(clip, monkeypatch):
    monkeypatch.setattr(loop, "close_ring", lambda links, variances: list(links))
    case = run(clip, T, STRIDE, ERRORS, loop=True)
    alignment = aligned(case)
    worlds, summary = close_loop(alignment, case.closing)
    assert not summary.closed and "too far from a ring" in summary.reason and summary.after is None
    assert worlds == alignment.worlds


def test_frames_that_do_not_see_the_begin_again_leave_the_ring_open(clip):
    case = run(clip, T, STRIDE, Errors(), loop=True)
    closing = case.closing.sampled
    closing.points[: case.closing.tail] += 30 * closing.typical_depth
    worlds, loop = close_loop(aligned(case), case.closing)
    assert not loop.closed and "do not see what the first ones do" in loop.reason
    assert drift(case, worlds).distance < 1e-4


def test_a_closing_window_unlike_the_clip_leaves_the_ring_open(clip):
    case = run(clip, T, STRIDE, Errors(), loop=True)
    chance = np.random.default_rng(0)
    closing = case.closing.sampled
    other = closing.points * np.exp(0.5 * chance.normal(size=closing.points.shape)).astype(np.float32)
    _, loop = close_loop(
        aligned(case), dataclasses.replace(case.closing, sampled=dataclasses.replace(closing, points=other))
    )
    assert not loop.closed and "otherwise than their own window" in loop.reason
    assert ClosingWindow.tail_of(2) == 1 and ClosingWindow.tail_of(5) == 3
