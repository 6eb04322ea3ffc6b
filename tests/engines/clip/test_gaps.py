"""Clips in which cameras lack frames: what belongs together, and what is in place of what is not there."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.gaps.absent_frame import AbsentFrame
from page4d_engines.clip.gaps.gap_pairing import by_time
from page4d_engines.clip.pairing import Pairing
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_engines.results.made_by import frames_hash, inputs_hash
from page4d_export.sample_scene.clip import render, save
from tests.engines.clip.bags.recordings import stream, write_bag
from tests.support.clips import H, T, V, W, images, refusal
from tests.support.examples import examples

LACKED = (2, 3)  # of cam1


@pytest.fixture
def clip(tmp_path):
    """A rendered clip whose second camera has no frame of two timesteps, and whose first none of the last."""
    folder = tmp_path / "clip"
    save(render(T, V, W, H), folder)
    for kind in ("frames", "masks"):
        for t in LACKED:
            (folder / kind / "cam1" / f"{t:06d}.png").unlink()
        (folder / kind / "cam0" / f"{T - 1:06d}.png").unlink()
    return folder


def test_every_name_is_a_timestep(clip):
    refusal(lambda: FrameFolder.open(clip), "different numbers of frames")
    frames = FrameFolder.open(clip, gaps=True)
    assert frames.frame_names == tuple(f"{t:06d}" for t in range(T)) and frames.count == T
    expected = np.ones((T, V), bool)
    expected[LACKED, 1] = expected[T - 1, 0] = False
    np.testing.assert_array_equal(frames.present, expected)
    assert frames.notes == (
        f"camera cam0 has no image at 1 of {T} times: {T - 1:06d}",
        f"camera cam1 has no image at 2 of {T} times: 000002, 000003",
    )
    whole = render(T, V, W, H).frames
    for t, v in np.ndindex(T, V):
        shown = whole[t, v] if expected[t, v] else np.zeros_like(whole[t, v])
        np.testing.assert_array_equal(np.asarray(frames.image(t, v)), shown)
        assert (not frames.mask(t, v).any()) or expected[t, v]


def test_windows_say_what_is_there_and_are_black_elsewhere(clip):
    from page4d import Layout

    frames = FrameFolder.open(clip, gaps=True)
    reader = WindowReader(frames, Layout(3, V, 28, 28), "stretch", False, False)
    for window, inputs in reader.read(windows(T, 3, 2)):
        np.testing.assert_array_equal(inputs.present, frames.present[window.start : window.stop])
        assert not inputs.images[~inputs.present].any() and inputs.images[inputs.present].any((1, 2, 3)).all()
        assert not inputs.mask_ext[~inputs.present].any()


def test_a_clip_without_gaps_is_read_as_ever(tmp_path):
    save(render(T, V, W, H), tmp_path / "clip")
    plain, open_to_gaps = (FrameFolder.open(tmp_path / "clip", gaps=gaps) for gaps in (False, True))
    assert plain.frame_files == open_to_gaps.frame_files and open_to_gaps.present.all()
    assert frames_hash(plain) == frames_hash(open_to_gaps) and inputs_hash(plain) == inputs_hash(open_to_gaps)


def test_the_hash_of_a_clip_knows_which_frames_are_absent(clip):
    before = [sum_(FrameFolder.open(clip, gaps=True)) for sum_ in (frames_hash, inputs_hash)]
    (clip / "frames" / "cam1" / "000004.png").unlink()
    after = [sum_(FrameFolder.open(clip, gaps=True)) for sum_ in (frames_hash, inputs_hash)]
    assert before[0] != after[0] and before[1] != after[1]


def test_names_that_have_nothing_in_common_pair_by_number_alone(tmp_path):
    images(tmp_path / "cam0", "a0.png", "a1.png", "a2.png")
    images(tmp_path / "cam1", "b0.png", "b1.png")
    refusal(lambda: FrameFolder.open(tmp_path, gaps=True), "different numbers of frames")
    images(tmp_path / "cam1", "b2.png")
    assert FrameFolder.open(tmp_path, gaps=True).present.all()


def test_an_absent_frame_has_the_size_of_its_neighbour(tmp_path):
    images(tmp_path / "cam0", "0.png", "1.png", size=(30, 20))
    images(tmp_path / "cam1", "1.png", size=(24, 18))
    frames = FrameFolder.open(tmp_path, gaps=True)
    assert frames.sizes == (((30, 20), (30, 20)), ((24, 18), (24, 18)))
    (absent, _) = frames.frame_files[1]
    assert isinstance(absent, AbsentFrame) and absent.name == "0 (absent)" and not absent.is_whole_file


def test_a_topic_that_stops_and_starts_leaves_gaps(tmp_path):
    pixels = render(T, V, W, H).frames.swapaxes(0, 1)
    topics = {"/a": stream(pixels[0]), "/b": stream(pixels[1], offset=2_000_000)}
    del topics["/b"][2:4]
    bag = write_bag(tmp_path / "bag", topics)
    assert FrameFolder.open(bag).count == T - 2, "timesteps that a camera lacks are left out"
    frames = FrameFolder.open(bag, gaps=True)
    np.testing.assert_array_equal(frames.present[:, 0], True)
    np.testing.assert_array_equal(frames.present[:, 1], [t not in LACKED for t in range(T)])
    assert frames.is_bag and [frame.stem for frame in frames.frame_files[1]][1:5] == [
        "000001",
        "000001+1",
        "000001+2",
        "000002",
    ]
    np.testing.assert_array_equal(np.asarray(frames.image(4, 1)), pixels[1, 4])
    first = {"/a": topics["/a"][1:], "/b": stream(pixels[1])}
    late = FrameFolder.open(write_bag(tmp_path / "late", first), gaps=True)
    assert late.is_bag and late.frame_names[:2] == ("start+1", "000000") and not late.present[0, 0]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (([0, 1, 2], [0, 1, 2]), [[0, 0], [1, 1], [2, 2]]),
        (([0, 1, 2, 3], [0.1, 1.1]), [[0, 0], [1, 1], [2, -1], [3, -1]]),
        (([0, 0.5, 1, 1.5, 2], [0, 1, 2]), [[0, 0], [2, 1], [4, 2]]),
        (([2, 3, 4], [0, 1, 2, 3, 4]), [[-1, 0], [-1, 1], [0, 2], [1, 3], [2, 4]]),
        (([0.2, 1.2, 2.1], [0, 1.1, 2.3]), [[0, 0], [1, 1], [2, 2]]),
        (
            ([0, 1, 2, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
            [[0, 0], [1, 1], [2, 2], [-1, 3], [-1, 4], [3, 5], [4, 6], [5, 7]],
        ),
    ],
)
def test_frames_of_the_slowest_camera_and_of_its_gaps_are_the_timesteps(times, expected):
    chosen = by_time([np.array(stamps, float) for stamps in times], None)
    np.testing.assert_array_equal(chosen, expected)


@examples(60)
@given(st.data())
def test_without_lost_frames_cameras_of_any_two_rates_have_one_for_every_timestep(data):
    rates = [data.draw(st.sampled_from([10, 12.5, 15, 24, 25, 30, 60])) for _ in range(2)]
    times = [np.arange(round(2 * rate) + 1) / rate for rate in rates]
    chosen = by_time(times, None)
    assert (chosen >= 0).all() and (np.diff(chosen, axis=0) > 0).all()
    assert len(chosen) == min(map(len, times))


def test_cameras_that_never_see_what_others_see_are_refused(tmp_path):
    files = FrameFolder.open(images(tmp_path / "a").parent).frame_files * 2
    refusal(
        lambda: Pairing._with_gaps(["a", "b"], files, np.array([[0, -1], [1, -1]])),
        "no times in common with the others: b",
    )


def test_a_video_that_ends_early_is_absent_at_the_end(tmp_path):
    pytest.importorskip("av")
    from tests.engines.clip.test_pairing import every, film

    film(tmp_path / "cam0.mkv", every(10, 0.8))
    film(tmp_path / "cam1.mkv", every(10, 0.5))
    frames = FrameFolder.open(tmp_path, gaps=True)
    np.testing.assert_array_equal(frames.present[:, 1], [True] * 6 + [False] * 3)
    assert frames.present[:, 0].all() and frames.frame_files[1][8].stem == "000008"


def test_a_camera_needs_one_frame(clip):
    shutil.rmtree(clip / "frames" / "cam1")
    (clip / "frames" / "cam1").mkdir()
    refusal(lambda: FrameFolder.open(clip, gaps=True), "cam1")
