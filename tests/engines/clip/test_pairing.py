"""Which frames of several videos are of one timestep: by number where their times agree, else by time."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.errors import UsageError
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.pairing import _by_time, _differ
from tests.support.examples import examples

PLAIN = {"codec": "libx264", "pixels": "yuv420p", "options": {"bf": "2"}}


def film(path, times, codec="ffv1", pixels="bgr0", options=(), form=None):
    """A video whose frames say when they were taken: frame of time t is grey of 50 levels a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form) as container:
        track = container.add_stream(codec, rate=1000, options=dict(options))
        track.width, track.height, track.pix_fmt = 32, 16, pixels
        track.codec_context.time_base = Fraction(1, 1000)
        for t in times:
            frame = av.VideoFrame.from_ndarray(
                np.full((16, 32, 3), round(50 * (t - times[0])), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = round(1000 * t), Fraction(1, 1000)
            container.mux(track.encode(frame))
        container.mux(track.encode())


def seconds(frames):
    """Seconds at which the frames were taken, `[V,T]`."""
    views = range(len(frames.camera_names))
    return np.array([[np.asarray(frames.image(t, v)).mean() / 50 for t in range(frames.count)] for v in views])


def every(rate, until):
    return [number / rate for number in range(int(until * rate) + 1)]


def test_videos_of_two_rates_are_paired_by_time(tmp_path):
    film(tmp_path / "cam0.mkv", every(30, 3))
    film(tmp_path / "cam1.mkv", every(25, 3))
    frames = FrameFolder.open(tmp_path)
    shown_at = seconds(frames)
    assert frames.count == 76, "every frame of the slower"
    assert np.abs(shown_at[0] - shown_at[1]).max() <= 0.5 / 25 + 0.01
    (note,) = frames.notes
    assert "cam0: 91 frames in 3.03 s, cam1: 76 frames in 3.04 s" in note and "76 times" in note
    assert "15 of cam0" in note


def test_masks_go_with_the_frames_that_were_chosen(tmp_path):
    for kind in ("frames", "masks"):
        film(tmp_path / kind / "cam0.mkv", every(20, 2))
        film(tmp_path / kind / "cam1.mkv", every(10, 2))
    frames = FrameFolder.open(tmp_path)
    assert frames.count == 21 and frames.frame_names[:3] == ("000000", "000002", "000004")
    for t in range(frames.count):
        for v in range(2):
            assert np.abs(frames.mask(t, v).astype(int) - np.asarray(frames.image(t, v))[..., 0]).max() <= 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rates(tmp_path, suffix):
    """A telephone that drops frames beside a camera that does not."""
    kept = [t for number, t in enumerate(every(20, 4)) if number not in (7, 8, 30, 31, 32, 55)]
    film(tmp_path / f"phone.{suffix}", kept, **PLAIN)
    film(tmp_path / f"camera.{suffix}", every(20, 4), **PLAIN)
    frames = FrameFolder.open(tmp_path)
    shown_at = seconds(frames)
    assert frames.count == len(kept) and np.abs(shown_at[0] - shown_at[1]).max() < 0.05 and len(frames.notes) == 1


def test_three_cameras_of_three_rates(tmp_path):
    for name, rate in (("a", 24), ("b", 30), ("c", 60)):
        film(tmp_path / f"{name}.mkv", every(rate, 2))
    shown_at = seconds(FrameFolder.open(tmp_path))
    assert shown_at.shape == (3, 49) and np.ptp(shown_at, axis=0).max() < 0.05


def test_the_end_that_one_video_lacks_is_left_out(tmp_path):
    film(tmp_path / "cam0.mkv", every(10, 4))
    film(tmp_path / "cam1.mkv", every(15, 2))
    frames = FrameFolder.open(tmp_path)
    assert frames.count == 21 and "20 of cam0" in frames.notes[0]


def test_times_that_agree_are_paired_by_number(tmp_path):
    """Also where frames come a little early or late, and where a file's clock starts late, which is said."""
    jitter = np.random.default_rng(0).uniform(-0.02, 0.02, 31)
    film(tmp_path / "cam0.mkv", [t + 0.03 for t in every(10, 3)])
    film(tmp_path / "cam1.mkv", [t + 0.03 + late for t, late in zip(every(10, 3), jitter, strict=True)])
    assert FrameFolder.open(tmp_path).count == 31 and FrameFolder.open(tmp_path).notes == ()
    film(tmp_path / "cam1.mkv", [t + 5 for t in every(10, 3)])
    frames = FrameFolder.open(tmp_path)
    assert frames.count == 31 and len(frames.notes) == 1 and "cam1 by 4.97 s" in frames.notes[0]


def test_the_same_rate_and_fewer_frames_is_an_error(tmp_path):
    """Nothing tells at which end they are missing."""
    film(tmp_path / "cam0.mkv", every(10, 3))
    film(tmp_path / "cam1.mkv", every(10, 2))
    with pytest.raises(
        UsageError, match=r"camera cam1: 21, camera cam0: 31; the first that camera cam1 lacks is 000021"
    ):
        FrameFolder.open(tmp_path)


def test_a_camera_of_images_beside_a_video_is_paired_by_number(tmp_path):
    film(tmp_path / "cam0" / "film.mkv", every(10, 1))
    (tmp_path / "cam1").mkdir()
    for number in range(11):
        Image.new("RGB", (32, 16)).save(tmp_path / "cam1" / f"{number:06d}.png")
    assert FrameFolder.open(tmp_path).count == 11


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_in_avi_that_are_stored_in_another_order(tmp_path, codec):
    """AVI has no place for the times that they are shown at; the times that it seems to have are of other frames."""
    options = {"codec": codec, "pixels": "yuv420p", "options": {"bf": "2", "g": "12"}}
    film(tmp_path / "cam0.avi", every(10, 4), **options)
    film(tmp_path / "cam1.mkv", every(10, 4))
    frames = FrameFolder.open(tmp_path)
    shown_at = seconds(frames)
    assert frames.count == 41 and np.abs(shown_at[0] - shown_at[1]).max() < 0.09 and frames.notes == ()
    order = np.random.default_rng(1).permutation(41)
    assert [np.asarray(frames.image(t, 0)).mean() / 50 for t in order] == shown_at[0, order].tolist()
    film(tmp_path / "cam1.mkv", every(5, 4))
    shown_at = seconds(FrameFolder.open(tmp_path))
    assert shown_at.shape == (2, 21) and np.ptp(shown_at, axis=0).max() < 0.09, "and its times are known"


def test_a_picture_on_the_cover_and_a_second_video(tmp_path):
    path = tmp_path / "cam0.mkv"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for track, side in zip(tracks, (32, 64), strict=True):
            track.width, track.height, track.pix_fmt = side, side, "bgr0"
        for _ in range(5):
            for track, side in zip(tracks, (32, 64), strict=True):
                container.mux(
                    track.encode(av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24"))
                )
        for track in tracks:
            container.mux(track.encode())
    frames = FrameFolder.open(path)
    assert frames.count == 5 and frames.notes == ("cam0.mkv has 2 videos in it, of which one was read",)


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    film(tmp_path / "rec:12" / "cam:0.mkv", every(10, 1))
    monkeypatch.chdir(tmp_path)
    assert FrameFolder.open("rec:12").camera_names == ("cam:0",) and FrameFolder.open("rec:12/cam:0.mkv").count == 11


_rig = st.lists(st.lists(st.floats(0.005, 0.3), min_size=1, max_size=40), min_size=2, max_size=4)


@examples(300)
@given(_rig)
def test_pairs_are_near_in_time_and_no_frame_is_taken_twice(steps):
    times = [np.concatenate([[0.0], np.cumsum(intervals)]) for intervals in steps]
    chosen = _by_time(times)
    assert chosen.shape[1] == len(times) and len(chosen) >= 1, "they begin together"
    assert (np.diff(chosen, axis=0) > 0).all()
    longest = max(float(np.median(np.diff(of_camera))) for of_camera in times)
    paired = np.stack([of_camera[chosen[:, v]] for v, of_camera in enumerate(times)])
    assert np.ptp(paired, axis=0).max() <= longest + 1e-9
    assert not _differ([paired[0]] * 2)
