"""Clips in video files: the same frames as in images, in any order, and files that are no videos."""

import pathlib
import shutil
import subprocess
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.fit import FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.video import Video
from page4d_engines.clip.window_reader import WindowReader, windows
from page4d_export.sample_scene.clip import render, save
from tests.support.clips import H, T, V, W, refusal
from tests.support.commands import run
from tests.support.examples import examples

EXACT = {"codec": "ffv1", "pixels": "bgr0"}  # loses nothing
LOSSY = {  # key frames every 8th at most, frames that are stored in another order than they are shown in
    "clip.mp4": {"codec": "libx264", "pixels": "yuv420p", "options": {"g": "8", "bf": "2"}},
    "clip.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "clip.mkv": {"codec": "libx264", "pixels": "yuv420p", "options": {"g": "250", "bf": "3"}},
    "clip.webm": {"codec": "libvpx-vp9", "pixels": "yuv420p", "options": {"g": "8"}},
    "clip.avi": {"codec": "mpeg4", "pixels": "yuv420p", "options": {"g": "8", "bf": "2"}},
}


def write(path, frames, codec, pixels, options=(), rate=Fraction(30000, 1001)):
    """A video of frames uint8 `[n,H,W,3]`."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, options=dict(options))
        track.width, track.height, track.pix_fmt = frames.shape[2], frames.shape[1], pixels
        for frame in frames:
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(track.encode())


def decoded(path):
    """All frames of a video, one after the other."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_image()) for frame in container.decode(video=0)]


def moving(count, width=64, height=48):
    """Frames that differ from each other."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 200, (height, width, 3))
    return np.stack([np.roll(still, 3 * t, axis=1) + t for t in range(count)]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The rendered clip in images, and the same in videos that lose nothing, masks as well."""
    root = tmp_path_factory.mktemp("saved")
    clip = render(T, V, W, H)
    save(clip, root / "images")
    for kind, of in (("frames", clip.frames), ("masks", np.repeat(clip.masks[..., None], 3, axis=-1))):
        (root / "videos" / kind).mkdir(parents=True)
        for v in range(V):
            write(root / "videos" / kind / f"cam{v}.mkv", of[:, v], **EXACT)
    shutil.copy(root / "images" / "cameras.json", root / "videos")
    return root


# ---- the same clip


def test_videos_are_the_clip_that_they_were_made_from(saved):
    images, videos = (FrameFolder.open(saved / name) for name in ("images", "videos"))
    assert (videos.camera_names, videos.frame_names, videos.size, videos.count) == (
        images.camera_names,
        images.frame_names,
        images.size,
        T,
    )
    assert list(videos.cameras) == list(images.cameras)
    for t in range(T):
        for v in range(V):
            assert videos.image(t, v).mode == "RGB" and np.array_equal(videos.image(t, v), images.image(t, v))
            assert np.array_equal(videos.mask(t, v), images.mask(t, v))


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_of_videos(saved, stride):
    layout, chosen = Layout(3, V, 42, 56), windows(T, 3, stride)
    readers = [
        WindowReader(FrameFolder.open(saved / name), layout, FitMode.CROP, False, True) for name in ("images", "videos")
    ]
    images, videos = (reader.read(chosen) for reader in readers)
    for (window, from_images), (same_window, from_video) in zip(images, videos, strict=True):
        assert window == same_window
        for name in ("images", "mask_ext", "fundamental"):
            assert np.array_equal(getattr(from_video, name), getattr(from_images, name)), name


def test_a_video_in_the_folder_of_its_camera_and_masks_as_images(saved, tmp_path):
    for v in range(V):
        (tmp_path / "clip" / "frames" / f"cam{v}").mkdir(parents=True)
        shutil.copy(
            saved / "videos" / "frames" / f"cam{v}.mkv", tmp_path / "clip" / "frames" / f"cam{v}" / "GX010042.MKV"
        )
    shutil.copytree(saved / "images" / "masks", tmp_path / "clip" / "masks")
    videos, images = FrameFolder.open(tmp_path / "clip"), FrameFolder.open(saved / "images")
    assert videos.camera_names == images.camera_names and videos.frame_names == images.frame_names
    assert np.array_equal(videos.image(4, 1), images.image(4, 1))
    assert np.array_equal(videos.mask(4, 1), images.mask(4, 1))


def test_one_video_is_a_camera(saved):
    video = saved / "videos" / "frames" / "cam1.mkv"
    frames = FrameFolder.open(video, loose=UngroupedImages.TIMES)
    assert frames.camera_names == ("cam1",) and frames.count == T and frames.mask_files is None
    assert frames.cameras is None and not frames.photos
    named = FrameFolder.open(video, masks=saved / "videos" / "masks", cameras=saved / "videos" / "cameras.json")
    assert list(named.cameras) == ["cam1"]
    assert np.array_equal(named.mask(2, 0), FrameFolder.open(saved / "images").mask(2, 1))


def test_images_go_before_videos(saved, tmp_path):
    """Photos with a video among them are photos; so are a camera's frames beside the video that they came from."""
    photos, video = tmp_path / "photos", saved / "videos" / "frames" / "cam0.mkv"
    shutil.copytree(saved / "images" / "frames" / "cam0", photos)
    shutil.copy(video, photos / "holiday.mkv")
    assert FrameFolder.open(photos, loose=UngroupedImages.VIEWS).count == 1
    assert FrameFolder.open(photos, loose=UngroupedImages.TIMES).count == T
    assert FrameFolder.open(photos).camera_names == ("holiday",), "where photos would be an error"
    shutil.copytree(photos, tmp_path / "clip" / "frames" / "cam0")
    frames = FrameFolder.open(tmp_path / "clip")
    assert frames.camera_names == ("cam0",) and frames.frame_files[0][0].name == "000000.png"


def test_a_run_over_videos(made, tmp_path):
    """Through the command: the same files with the same content as of images."""
    clip = render(3, 2, 70, 56)
    save(clip, tmp_path / "images")
    shutil.copytree(tmp_path / "images" / "masks", tmp_path / "videos" / "masks")
    (tmp_path / "videos" / "frames").mkdir()
    for v in range(2):
        write(tmp_path / "videos" / "frames" / f"cam{v}.mkv", clip.frames[:, v], **EXACT)
    for name in ("images", "videos"):
        done = run(made().folder, tmp_path / name, "-o", tmp_path / f"out-{name}")
        assert done.returncode == 0, done.stderr
    outs = [tmp_path / f"out-{name}" for name in ("images", "videos")]
    results = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.suffix in (".png", ".safetensors")}
        for out in outs
    ]
    assert results[0] == results[1] and len(results[0]) >= 7


# ---- any frame


@pytest.fixture(scope="module", params=LOSSY)
def lossy(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("lossy") / request.param
    write(path, moving(50), **LOSSY[request.param])
    return path, decoded(path)


def test_in_order(lossy):
    path, frames = lossy
    video = Video(path, "it")
    assert video.count == len(frames) == 50 and video.size == (64, 48)
    assert all(np.array_equal(video.image(number, "it"), frame) for number, frame in enumerate(frames))


@examples(10)
@given(st.lists(st.integers(0, 49), min_size=1, max_size=8))
def test_in_any_order(lossy, numbers):
    path, frames = lossy
    video = Video(path, "it")
    for number in numbers:
        assert np.array_equal(video.image(number, "it"), frames[number]), numbers


def test_from_several_threads(lossy):
    path, frames = lossy
    video, wrong = Video(path, "it"), []

    def read(first):
        for number in range(first, 50, 7):
            if not np.array_equal(video.image(number, "it"), frames[number]):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(first,)) for first in (0, 3, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("matrix", "turn"), [((0, 1, -1, 0), Image.Transpose.ROTATE_270), ((-1, 0, 0, -1), Image.Transpose.ROTATE_180)]
)
def test_a_video_is_turned_as_it_says(tmp_path, matrix, turn):
    """Telephones film sideways and write down how to turn it: by a matrix in the track's header."""
    path = tmp_path / "clip.mp4"
    write(path, moving(3), "libx264", "yuv420p")
    upright = decoded(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version, flags, times, track, layer, volume
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    path.write_bytes(content)
    video = Video(path, "it")
    turned = Image.fromarray(upright[1]).transpose(turn)
    assert video.size == turned.size and np.array_equal(video.image(1, "it"), turned)


# ---- refused


def test_unequal_counts(saved, tmp_path):
    folder = shutil.copytree(saved / "videos", tmp_path / "clip")
    write(folder / "frames" / "cam1.mkv", moving(T - 2, W, H), **EXACT)
    refusal(
        lambda: FrameFolder.open(folder),
        "different numbers of frames",
        "camera cam1: 5, camera cam0: 7",
        "the first that camera cam1 lacks is 000005",
    )


def test_sizes_and_masks_that_do_not_match(saved, tmp_path):
    folder = shutil.copytree(saved / "videos", tmp_path / "clip")
    write(folder / "masks" / "cam0.mkv", moving(T - 1, W, H), **EXACT)
    refusal(lambda: FrameFolder.open(folder), "camera cam0 has no mask for frame 000006 of cam0.mkv")
    write(folder / "frames" / "cam1.mkv", moving(T, W + 2, H), **EXACT)
    shutil.rmtree(folder / "masks")
    refusal(
        lambda: FrameFolder.open(folder), "cameras.json says another size for camera cam1", f"{W + 2}x{H}", f"{W}x{H}"
    )
    (folder / "cameras.json").unlink()
    frames = FrameFolder.open(folder)
    words = ("different sizes: camera cam1, frame 000000 of cam1.mkv", f"{W + 2}x{H}", f"{W}x{H}")
    refusal(lambda: WindowReader(frames, Layout(3, V, 42, 56), None, False, False), *words)


def test_two_videos_of_a_camera(saved, tmp_path):
    folder = shutil.copytree(saved / "videos", tmp_path / "clip")
    shutil.copy(folder / "frames" / "cam1.mkv", folder / "frames" / "cam1.mp4")
    refusal(
        lambda: FrameFolder.open(folder), "there are two videos of camera cam1", "cam1.mkv, cam1.mp4", "one per camera"
    )


@pytest.mark.parametrize("content", [b"", b"no video", bytes(range(256)) * 40])
def test_no_video_at_all(saved, tmp_path, content):
    folder = shutil.copytree(saved / "videos", tmp_path / "clip")
    (folder / "frames" / "cam1.mkv").write_bytes(content)
    refusal(
        lambda: FrameFolder.open(folder),
        "camera cam1: cam1.mkv cannot be read",
        folder / "frames" / "cam1.mkv",
        "a whole video",
    )


def test_sound_alone(tmp_path):
    with av.open(str(tmp_path / "cam0.mkv"), "w") as container:
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(track.encode(sound))
    refusal(lambda: FrameFolder.open(tmp_path), "camera cam0: cam0.mkv cannot be read: it has no video in it")


def test_a_bare_stream(tmp_path):
    """Its frames have no times, by which they could be told apart: they are counted, and paired by number."""
    for name in ("cam0.avi", "cam1.avi"):
        with av.open(str(tmp_path / name), "w", format="h264") as container:
            track = container.add_stream("libx264", rate=25, options={"bf": "2"})
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
            for frame in moving(9):
                container.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(track.encode())
    frames, images = FrameFolder.open(tmp_path), decoded(tmp_path / "cam0.avi")
    assert frames.count == len(images) == 9 and any("no times of their own" in note for note in frames.notes)
    assert all(np.array_equal(frames.image(number, 1), images[number]) for number in (0, 5, 8, 3, 4))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm"])
def test_a_video_that_is_cut_off(tmp_path, name):
    """Whatever the container lets through: a frame is right, or refused when it is read."""
    path = tmp_path / name
    write(path, moving(50), **LOSSY[name])
    frames = decoded(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refused = 0
    try:
        video = Video(path, "camera cam0")
    except UsageError as error:
        assert "camera cam0 cannot be read" in str(error)
        return
    for number in range(video.count):
        try:
            image = video.image(number, f"camera cam0, frame {number}")
        except UsageError as error:
            assert f"camera cam0, frame {number} cannot be read" in str(error)
            refused += 1
        else:
            assert np.array_equal(image, frames[number]) or number >= video.count - 1
    assert refused or video.count < 50


def test_without_pyav_it_is_named():
    """As where it is not installed: exit code 5 and what to install, and images need none of it."""
    code = """
import pathlib, sys
sys.modules["av"] = None
from page4d.errors import MissingBackendError
from page4d_engines.clip.video import Video
try:
    Video(pathlib.Path("cam0.mp4"), "camera cam0")
except MissingBackendError as error:
    assert "PyAV" in str(error) and "page4d[video]" in str(error) and error.exit_code == 5
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parent)
