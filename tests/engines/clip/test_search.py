"""Which files of a folder are a clip's frames.

There is one reading, or an error that names both; files that are passed over are noted."""

import os
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from page4d.errors import Page4DError, UsageError
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from tests.support.clips import images, refusal

VIEWS, TIMES = UngroupedImages.VIEWS, UngroupedImages.TIMES


def video(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        track = container.add_stream("ffv1", rate=10)
        track.width, track.height, track.pix_fmt = 20, 16, "bgr0"
        for _ in range(3):
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((16, 20, 3), np.uint8), format="rgb24")))
        container.mux(track.encode())
    return path


# ---- images and folders side by side


@pytest.mark.parametrize("loose", UngroupedImages)
@pytest.mark.parametrize("name", ["thumbs", "frames", "images", "small", "cam0"])
def test_images_beside_a_folder_of_images_can_be_read_in_two_ways(tmp_path, loose, name):
    images(images(tmp_path / "photos") / name)
    of_images = "a view per image (p0.png" if loose is VIEWS else "a time per image (p0.png"
    refusal(
        lambda: FrameFolder.open(tmp_path / "photos", loose=loose),
        "side by side",
        of_images,
        f"a camera per folder ({name})",
        "move",
    )


def test_a_folder_of_a_video_beside_images(tmp_path):
    video(images(tmp_path) / "old" / "film.mkv")
    refusal(lambda: FrameFolder.open(tmp_path, loose=VIEWS), "side by side", "old/ with 1 video (film.mkv)")


@pytest.mark.parametrize("loose", UngroupedImages)
@pytest.mark.parametrize("kind", ["masks", "keypoints"])
def test_masks_among_the_photos_are_taken_where_they_are_named(tmp_path, loose, kind):
    images(tmp_path / kind, value=255)
    images(tmp_path)
    refusal(
        lambda: FrameFolder.open(tmp_path, loose=loose),
        "side by side",
        f"--{kind} {tmp_path / kind}, as they are named like the images",
    )
    frames = FrameFolder.open(tmp_path, **{kind: tmp_path / kind}, loose=loose)
    files = frames.mask_files if kind == "masks" else frames.keypoint_files
    assert [[file.path for file in column] for column in files] == [
        [tmp_path / kind / file.name for file in column] for column in frames.frame_files
    ]
    assert len(files) == (3 if loose is VIEWS else 1) and frames.notes == ()


@pytest.mark.parametrize("name", ["mask", "Masks", "KEYPOINTS"])
def test_folders_that_are_called_nearly_so_are_named(clip, tmp_path, name):
    kind = "keypoints" if name == "KEYPOINTS" else "masks"
    (clip / "masks").rename(clip / name)
    assert FrameFolder.open(clip).notes == (f"{name}/ beside the frames was not read: --{kind} {clip / name} does",)
    assert FrameFolder.open(clip, **{kind: clip / name}).notes == ()
    images(images(tmp_path / "photos") / name)
    refusal(lambda: FrameFolder.open(tmp_path / "photos", loose=VIEWS), f"--{kind} {tmp_path / 'photos' / name}")


def test_other_names_are_no_masks(tmp_path):
    images(images(tmp_path) / "masks", "a.png", "b.png")
    with pytest.raises(UsageError, match="side by side") as caught:
        FrameFolder.open(tmp_path, loose=VIEWS)
    assert "--masks" not in str(caught.value)


@pytest.mark.parametrize("inner", ["", "cam0"])
def test_masks_among_the_cameras_can_be_read_in_two_ways(tmp_path, inner):
    for name in ("cam0", "cam1"):
        images(tmp_path / name)
        images(tmp_path / "masks" / (name if inner else ""))
    refusal(lambda: FrameFolder.open(tmp_path), "may be a camera, or the masks", f"--masks {tmp_path / 'masks'}")
    if inner:
        frames = FrameFolder.open(tmp_path, masks=tmp_path / "masks")
        assert frames.camera_names == ("cam0", "cam1") and frames.mask_files is not None


def test_a_folder_of_masks_alone(tmp_path):
    images(tmp_path / "masks")
    refusal(lambda: FrameFolder.open(tmp_path, loose=TIMES), "may be a camera, or the masks", "itself, or rename it")


@pytest.mark.parametrize("inner", ["", "depth/p0.png", "notes.txt"])
def test_a_folder_without_images_leaves_photos_as_they_are(tmp_path, inner):
    (images(tmp_path) / "out" / inner).parent.mkdir(parents=True, exist_ok=True)
    if inner:
        (tmp_path / "out" / inner).write_bytes(b"x")
    else:
        (tmp_path / "out").mkdir()
    frames = FrameFolder.open(tmp_path, loose=VIEWS)
    assert frames.camera_names == ("p0", "p1", "p2") and frames.notes == ()


def test_an_earlier_run_is_no_camera(tmp_path):
    for name in ("cam0", "cam1"):
        images(tmp_path / name)
    images(tmp_path / "out" / "depth")
    (tmp_path / "out" / "summary.json").write_text("{}")
    assert FrameFolder.open(tmp_path).camera_names == ("cam0", "cam1")
    (tmp_path / "cam1" / "summary.json").write_text("{}")
    assert FrameFolder.open(tmp_path).camera_names == ("cam0", "cam1"), "a camera has images"


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".thumbnails", "lost+found"])
def test_what_systems_put_into_folders_is_passed_over(tmp_path, name):
    images(images(tmp_path) / name)
    (tmp_path / "._p0.png").write_bytes(b"\0\5\x16\7")
    frames = FrameFolder.open(tmp_path, loose=VIEWS)
    assert len(frames.camera_names) == 3 and frames.notes == ()


def test_videos_beside_folders(tmp_path):
    """A folder named as the video that its images came from goes before it; any other is another reading."""
    video(tmp_path / "cam0.mkv")
    images(tmp_path / "thumbs")
    refusal(lambda: FrameFolder.open(tmp_path), "either may be the cameras", "cam0.mkv", "thumbs")
    (tmp_path / "thumbs").rename(tmp_path / "cam0")
    frames = FrameFolder.open(tmp_path)
    assert frames.frame_files[0][0].name == "p0.png"
    assert "cam0.mkv beside the cameras' folders was not read" in frames.notes
    shutil.rmtree(tmp_path / "cam0")
    (tmp_path / "out").mkdir()
    frames = FrameFolder.open(tmp_path)
    assert frames.camera_names == ("cam0",) and frames.count == 3 and frames.notes == ()


def test_folders_inside_a_camera_are_said_to_be_passed_over(tmp_path):
    images(images(tmp_path / "cam0") / "thumbs")
    frames = FrameFolder.open(tmp_path)
    assert frames.camera_names == ("cam0",) and frames.count == 3
    assert frames.notes == ("folders of camera cam0 were not read: thumbs",)
    images(tmp_path / "cam1" / "images")
    refusal(lambda: FrameFolder.open(tmp_path), "camera cam1 has no images", "its images lie deeper, in images/")


def test_images_that_no_engine_of_several_times_and_views_reads_are_named(clip):
    Image.new("RGB", (9, 9)).save(clip / "frames" / "preview.png")
    frames = FrameFolder.open(clip)
    assert frames.camera_names == ("cam0", "cam1") and frames.notes == (
        "preview.png beside the cameras' folders was not read",
    )


# ---- `images` as other projects have it


def test_a_folder_called_images_is_the_folder_of_the_frames(tmp_path):
    images(tmp_path / "images")
    assert FrameFolder.open(tmp_path, loose=VIEWS).camera_names == ("p0", "p1", "p2")
    frames = FrameFolder.open(tmp_path, loose=TIMES)
    assert frames.camera_names == ("images",) and frames.count == 3
    images(tmp_path / "masks")
    assert FrameFolder.open(tmp_path, loose=TIMES).mask_files is not None
    assert any(
        "masks/ beside the frames was not read" in note for note in FrameFolder.open(tmp_path, loose=VIEWS).notes
    )
    images(tmp_path / "images_2")
    refusal(
        lambda: FrameFolder.open(tmp_path, loose=VIEWS),
        "a folder `images` and others",
        "a camera per folder: images, images_2",
    )


def test_cameras_in_a_folder_called_images(tmp_path):
    for name in ("cam0", "cam1"):
        images(tmp_path / "images" / name)
        images(tmp_path / "masks" / name)
    frames = FrameFolder.open(tmp_path)
    assert frames.camera_names == ("cam0", "cam1") and frames.mask_files is not None


def test_any_tree_of_files_is_a_clip_or_an_error(tmp_path):
    """Random folders of images, videos, links and junk."""
    rng = np.random.default_rng(0)
    image, film = images(tmp_path / "one", "p.png") / "p.png", video(tmp_path / "film.mkv")
    folders = ("cam0", "cam1", "masks", "frames", "images", "keypoints", "out")
    names = (*folders, "loop", "gone", "p0.png", "p1.png", "a.mkv", "b.HEIC", "c.gif", "pipe.png", "cameras.json")
    opened = 0
    for number in range(150):
        root = tmp_path / f"tree{number}"
        parents = [root]
        root.mkdir()
        for name in rng.permutation(names)[: rng.integers(1, len(names))]:
            path = parents[rng.integers(len(parents))] / name
            if name in folders:
                path.mkdir()
                parents.append(path)
                if rng.random() < 0.6:
                    shutil.copy(image, path / "p0.png")
            elif name.endswith("p0.png") or name == "p1.png":
                shutil.copy(image, path)
            elif name == "a.mkv":
                shutil.copy(film, path)
            elif name == "pipe.png" and rng.random() < 0.2:
                os.mkfifo(path)
            elif name in ("loop", "gone"):
                path.symlink_to("." if name == "loop" else "/gone")
            elif name == "cameras.json":
                path.write_text("{}")
            elif name != "pipe.png":
                path.write_bytes(b"x")
        for loose in (None, VIEWS, TIMES):
            try:
                frames = FrameFolder.open(root, loose=loose)
            except Page4DError:
                continue
            opened += 1
            assert frames.count >= 1 and len(frames.camera_names) == len(frames.frame_files) >= 1
    assert opened > 20
