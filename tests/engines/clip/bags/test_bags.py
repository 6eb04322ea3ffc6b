"""Recorded bags as clips: the same frames as in images, times by stamps, and bags that are damaged or none."""

import io
import itertools
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from page4d.errors import MissingBackendError, OutOfMemoryError
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.pixels.formats import PixelFormat
from page4d_engines.results.made_by import inputs_hash
from page4d_export.sample_scene.clip import render, save
from tests.engines.clip.bags.recordings import PERIOD, START, camera_info, compressed, raw, stream, write_bag
from tests.support.clips import H, T, V, W, refusal, write_png

STORAGES = ("MCAP", "SQLITE3")
A, B = "/rig/camera_2/image_raw", "/rig/camera_10/image_raw"
NAMES = ("rig.camera_2.image_raw", "rig.camera_10.image_raw")


@pytest.fixture(scope="module")
def frames():
    """Of a rendered clip, uint8 `[V,T,H,W,3]`."""
    return render(T, V, W, H).frames.swapaxes(0, 1)


def opened(path, topics, storage="MCAP", chosen=None, **options):
    return FrameFolder.open(write_bag(path, topics, storage), topics=chosen, **options)


def only_file(bag):
    """The file of a bag's folder that holds the messages."""
    (file,) = (file for file in bag.iterdir() if file.suffix != ".yaml")
    return file


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_bag_is_the_clip_that_it_was_made_from(storage, as_file, frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {B: stream(frames[1]), A: stream(frames[0], offset=2_000_000)}, storage)
    clip = FrameFolder.open(only_file(bag) if as_file else bag)
    assert clip.camera_names == NAMES and clip.size == (W, H) and clip.count == T and clip.notes == ()
    assert clip.frame_names == tuple(f"{t:06d}" for t in range(T))
    order = [*itertools.product(range(T), range(V)), (0, 0), (T - 1, 1), (3, 0)]  # also back, and in leaps
    for t, v in order:
        np.testing.assert_array_equal(np.asarray(clip.image(t, v)), frames[v, t])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_every_encoding_of_8_bits_is_read_also_with_padded_rows(encoding, frames, tmp_path):
    clip = opened(tmp_path / "bag", {A: stream(frames[0], encoding=encoding, padding=5)})
    expected = frames[0] if encoding != "mono8" else np.repeat(frames[0][..., :1], 3, axis=-1)
    for t in range(T):
        np.testing.assert_array_equal(np.asarray(clip.image(t, 0)), expected[t])
    assert not clip.transparent  # alpha of cameras means nothing


@pytest.mark.parametrize(
    "encoding, name",
    [
        *((f"bayer_{name}8", f"bayer_{name}8") for name in ("rggb", "bggr", "gbrg", "grbg")),
        *((name, name) for name in ("nv12", "nv21", "yuyv", "uyvy")),
        *(("yuv422_yuy2", "yuyv"), ("yuv422", "uyvy")),
    ],
)
def test_what_cameras_give_becomes_colours_also_with_padded_rows(encoding, name, frames, tmp_path):
    pixels = PixelFormat(name)
    height, width = frames.shape[2:4]
    messages = []
    for (recorded, message), frame in zip(stream(frames[0], encoding=encoding), frames[0], strict=True):
        rows = np.resize(frame, (pixels.rows(height), width * pixels.channels))
        message.step = rows.shape[1] + 6
        message.data = np.pad(rows, ((0, 0), (0, 6)), constant_values=99).ravel()
        messages.append((recorded, message))
    clip = opened(tmp_path / "bag", {A: messages})
    rows = np.resize(frames[0, 2], (pixels.rows(height), width * pixels.channels))
    np.testing.assert_array_equal(np.asarray(clip.image(2, 0)), pixels.rgb(rows.ravel(), width, height))


def test_a_bayer_pattern_beside_the_colours_made_of_it_is_no_camera_of_its_own(frames, tmp_path):
    def pattern():
        return stream(frames[0], encoding="bayer_grbg8")

    clip = opened(tmp_path / "both", {"/left/image_raw": pattern(), "/left/image_color": stream(frames[0])})
    assert clip.camera_names == ("left.image_color",)
    assert any("Bayer" in note and "/left/image_raw" in note for note in clip.notes)
    others = {"/left/image_raw": pattern(), "/right/image_raw": pattern(), "/front": pattern(), "/back": pattern()}
    assert len(opened(tmp_path / "others", others).camera_names) == 4


def test_compressed_images_are_decoded_by_what_they_are(frames, tmp_path):
    topics = {
        "/a/compressed": stream(frames[0], compressed),
        "/b/compressed": stream(frames[1], compressed, kind="jpeg"),
    }
    clip = opened(tmp_path / "bag", topics)
    np.testing.assert_array_equal(np.asarray(clip.image(2, 0)), frames[0, 2])
    with Image.open(io.BytesIO(topics["/b/compressed"][2][1].data.tobytes())) as jpeg:
        np.testing.assert_array_equal(np.asarray(clip.image(2, 1)), np.asarray(jpeg))


def test_topics_choose_and_order_the_cameras(frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0]), B: stream(frames[1])})
    assert FrameFolder.open(bag, topics=[B, A]).camera_names == NAMES[::-1]
    for other in (B.lstrip("/"), NAMES[1]):
        assert FrameFolder.open(bag, topics=[other]).camera_names == NAMES[1:]
    refusal(lambda: FrameFolder.open(bag, topics=["/c"]), "no such topic", "/c", f"{A}, {B}")
    refusal(lambda: FrameFolder.open(bag, topics=[]), "no topics")
    refusal(lambda: FrameFolder.open(bag, topics=[A, A]), "names of their own")
    refusal(lambda: FrameFolder.open(tmp_path, topics=[A]), "topics are of recorded bags")


def test_topics_that_are_no_cameras_are_left_out_with_a_note(frames, tmp_path):
    depth = stream(frames[0], encoding="16UC1")
    topics = {A: stream(frames[0]), f"{A}/compressed": stream(frames[0], compressed), "/depth": depth}
    clip = opened(tmp_path / "bag", topics)
    assert clip.camera_names == NAMES[:1]
    assert any("uncompressed" in note and f"{A}/compressed" in note for note in clip.notes)
    assert any("cannot be read" in note and "/depth" in note for note in clip.notes)
    both = FrameFolder.open(tmp_path / "bag", topics=[f"{A}/compressed", A])
    assert both.camera_names == (f"{NAMES[0]}.compressed", NAMES[0])
    refusal(lambda: FrameFolder.open(tmp_path / "bag", topics=["/depth"]), "more than 8 bits", "16UC1", "/depth")


# ---- time


def test_timesteps_are_found_by_stamps_and_dropped_images_are_counted(frames, tmp_path):
    first, second = stream(frames[0]), stream(frames[1], offset=-4_000_000, delay=80_000_000)
    del first[2], second[5]
    clip = opened(tmp_path / "bag", {A: first, B: second})
    assert clip.count == T - 2
    for row, t in enumerate(t for t in range(T) if t not in (2, 5)):
        for v in range(V):
            np.testing.assert_array_equal(np.asarray(clip.image(row, v)), frames[v, t])
    (note,) = clip.notes
    assert f"{T - 2} times were paired" in note and f"1 of {NAMES[0]}, 1 of {NAMES[1]}" in note


def test_a_slow_camera_does_not_widen_the_tolerance(frames, tmp_path):
    """Half of the fastest camera's period counts: what a fast camera missed is not replaced by a far image."""
    fast = stream(frames[0])
    slow = [stream(frames[1])[t] for t in (0, 3, 6)]
    del fast[3]
    clip = opened(tmp_path / "bag", {A: fast, B: slow})
    assert clip.count == 2
    np.testing.assert_array_equal(np.asarray(clip.image(1, 0)), frames[0, 6])


def test_images_are_ordered_by_their_stamps_and_not_by_their_arrival(frames, tmp_path):
    messages = stream(frames[0])
    moments = [recorded for recorded, _ in messages]
    shuffled = [(moment, message) for moment, (_, message) in zip(moments, messages[::-1], strict=True)]
    clip = opened(tmp_path / "bag", {A: shuffled})
    np.testing.assert_array_equal(np.asarray(clip.image(1, 0)), frames[0, 1])


@pytest.mark.parametrize("storage", STORAGES)
def test_images_recorded_at_one_moment_are_told_apart(storage, frames, tmp_path):
    messages = [(START, message) for _, message in stream(frames[0])]
    clip = opened(tmp_path / "bag", {A: messages}, storage)
    for t in (0, 4, 2):
        np.testing.assert_array_equal(np.asarray(clip.image(t, 0)), frames[0, t])


def test_images_without_stamps_take_the_times_of_recording(frames, tmp_path):
    messages = [(START + t * PERIOD, raw(frame, 0)) for t, frame in enumerate(frames[0])]
    clip = opened(tmp_path / "bag", {A: messages})
    assert clip.count == T and any("no stamps" in note for note in clip.notes)
    repeated = [(START + t * PERIOD, raw(frame, START)) for t, frame in enumerate(frames[0])]
    clip = opened(tmp_path / "again", {A: repeated})
    assert clip.count == 1 and any(f"{T - 1} images" in note and "repeat a stamp" in note for note in clip.notes)


def test_topics_of_different_times_are_refused(frames, tmp_path):
    topics = {A: stream(frames[0]), B: stream(frames[1], offset=100 * PERIOD + 1)}
    refusal(lambda: opened(tmp_path / "bag", topics), "no times in common", NAMES[0], "--topics")
    one_each = {A: stream(frames[0][:1]), B: stream(frames[1][:1], offset=10_000_000)}
    assert opened(tmp_path / "one", one_each).count == 1


# ---- what belongs to a bag


def test_calibration_is_that_of_camera_info_with_pixels_counted_from_their_edge(frames, tmp_path):
    K = [[50, 0, 23.5], [0, 51, 17.5], [0, 0, 1]]
    infos = {topic.replace("image_raw", "camera_info"): [(START, camera_info(W, H, K))] for topic in (A, B)}
    topics = {A: stream(frames[0]), B: stream(frames[1])}
    clip = opened(tmp_path / "bag", topics | infos)
    assert clip.cameras is None, "a calibration without poses is no cameras.json"
    assert list(clip.calibration) == list(NAMES)
    np.testing.assert_array_equal(clip.calibration[NAMES[0]].K, [[50, 0, 24], [0, 51, 18], [0, 0, 1]])
    infos["/rig/camera_10/camera_info"] = [(START, camera_info(W, H, K, (0.1, 0, 0, 0, 0)))]
    (note,) = opened(tmp_path / "distorted", topics | infos).notes
    assert "distort" in note and NAMES[1] in note and NAMES[0] not in note
    for number, wrong in enumerate((camera_info(2 * W, H, K), camera_info(W, H, np.zeros((3, 3))))):
        infos["/rig/camera_10/camera_info"] = [(START, wrong)]
        assert opened(tmp_path / f"wrong{number}", topics | infos).calibration == {}


def test_masks_and_cameras_are_those_that_are_named(frames, tmp_path):
    save(render(T, 1, W, H), tmp_path / "clip")
    (tmp_path / "clip" / "masks" / "cam0").rename(tmp_path / "clip" / "masks" / NAMES[0])
    bag = write_bag(tmp_path / "clip" / "bag", {A: stream(frames[0])})
    assert FrameFolder.open(bag).mask_files is None and FrameFolder.open(bag).cameras is None
    clip = FrameFolder.open(bag, masks=tmp_path / "clip" / "masks")
    assert clip.mask(0, 0).shape == (H, W)


def test_what_is_read_may_not_be_written_and_a_change_is_noticed(frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0])})
    clip = FrameFolder.open(bag)
    assert clip.places["the folder of frames"] == bag
    before = inputs_hash(clip)
    assert inputs_hash(FrameFolder.open(bag)) == before
    file = only_file(bag)
    file.touch()
    assert inputs_hash(FrameFolder.open(bag)) != before
    assert inputs_hash(FrameFolder.open(file))


# ---- what is refused


@pytest.mark.parametrize(
    "changed, part",
    [
        ({"width": 10**6}, "step shorter than a row"),
        ({"height": 10**6}, "ends too early"),
        ({"height": 0}, "no pixels"),
        ({"step": 4}, "step shorter than a row"),
        ({"step": 2**31}, "ends too early"),
        ({"encoding": "nv24"}, "image_proc"),
        ({"encoding": "nv12"}, "ends too early"),
        ({"encoding": "uyvy", "width": 3, "step": 6}, "an even width"),
        ({"encoding": "nv21", "height": 3}, "an even width and height"),
        ({"encoding": "bayer_rggb8", "height": 2}, "at least 3x3"),
        ({"encoding": "bayer_rggb16"}, "more than 8 bits"),
        ({"encoding": "16UC1"}, "more than 8 bits"),
        ({"encoding": "\n\x1b[2J"}, "encoding"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(changed, part, frames, tmp_path):
    messages = [*stream(frames[0][:2]), (START + 9 * PERIOD, raw(frames[0, 2], START + 9 * PERIOD, **changed))]
    text = refusal(lambda: opened(tmp_path / "bag", {A: messages}), f"image 2 of topic {A}", part)
    assert "\x1b" not in text


def test_compressed_images_that_are_none_are_refused(frames, tmp_path):
    good = compressed(frames[0, 0], START)
    cut = compressed(frames[0, 0], START)
    cut.data = cut.data[: len(cut.data) // 2]
    deep = compressed(frames[0, 0, ..., 0].astype(np.uint16) * 257, START, said="16UC1; png compressed ")
    for number, (message, part) in enumerate([(deep, "more than 8 bits"), (good, "PNG of 8 bits")]):
        if message is good:
            good.data = np.frombuffer(b"\0" * 12 + good.data.tobytes(), np.uint8)  # as compressedDepth has
        refusal(lambda: opened(tmp_path / f"bag{number}", {"/a": [(START, message)]}, chosen=["/a"]), part)  # noqa: B023
    clip = opened(tmp_path / "cut", {"/a": [(START, cut)]})
    refusal(lambda: clip.image(0, 0), "cannot be decoded")


def test_a_png_with_a_damaged_chunk_after_its_pixels_is_refused(frames, tmp_path):
    message = compressed(frames[0][0], START)
    data = message.data.tobytes()
    end = data.index(b"IEND") - 4
    chunk = struct.pack(">I", 0) + b"iCCP" + struct.pack(">I", zlib.crc32(b"iCCP"))  # a colour profile without a name
    message.data = np.frombuffer(data[:end] + chunk + data[end:], np.uint8)
    clip = opened(tmp_path / "bag", {A: [(START, message)]})
    refusal(lambda: clip.image(0, 0), "cannot be decoded")


def test_an_image_that_memory_cannot_hold_is_refused_before_it_is_decoded(frames, tmp_path):
    write_png(tmp_path / "huge.png", 2**30, 2**20, 8, b"")
    huge = compressed(frames[0, 0], START)
    huge.data = np.frombuffer((tmp_path / "huge.png").read_bytes(), np.uint8)
    refusal(lambda: opened(tmp_path / "bag", {"/a": [(START, huge)]}), "too large", kind=OutOfMemoryError)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_damaged_bag_ends_in_words(storage, frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0])}, storage)
    file = only_file(bag)
    whole = file.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:size])
        for path in (bag, file):
            refusal(lambda: _all_read(path), "cannot be read")  # noqa: B023
    rng = np.random.default_rng(0)
    for _ in range(40):  # some of these are read, as a changed pixel is no damage
        spoiled = np.frombuffer(whole, np.uint8).copy()
        spoiled[rng.integers(0, len(spoiled), 20)] = rng.integers(0, 256, 20)
        file.write_bytes(spoiled.tobytes())
        try:
            _all_read(file)
        except Exception as error:
            assert type(error).__module__ == "page4d.errors", repr(error)


def _all_read(path):
    clip = FrameFolder.open(path)
    for t in range(clip.count):
        clip.image(t, 0)


@pytest.mark.parametrize("text", ["", "[", "rosbag2_bagfile_information: 3", "a: &a [*a]", "{" * 10000])
def test_damaged_metadata_ends_in_words(text, frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0])})
    (bag / "metadata.yaml").write_text(text)
    refusal(lambda: FrameFolder.open(bag), "cannot be read", "reindex")


def test_a_bag_without_metadata_is_read_by_its_file(frames, tmp_path):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0])})
    (bag / "metadata.yaml").unlink()
    refusal(lambda: FrameFolder.open(bag), "read by its file", only_file(bag))
    assert FrameFolder.open(only_file(bag)).count == T


def test_a_bag_without_images_is_refused(tmp_path):
    refusal(lambda: opened(tmp_path / "bag", {"/info": [(START, camera_info(W, H, np.eye(3)))]}), "no topics of images")


def test_without_rosbags_the_error_names_the_extra(frames, tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", {A: stream(frames[0])})
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    refusal(lambda: FrameFolder.open(bag), 'pip install "page4d[bags]"', kind=MissingBackendError)


def test_a_file_that_is_called_a_bag_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mcap")
    refusal(lambda: FrameFolder.open(tmp_path / "a.mcap"), "the bag a.mcap cannot be read")
