"""Which files of a folder are a clip's frames: one reading, or an error that names both; and what is said of files that
were passed over."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import unicodedata

import av
import numpy as np
import pytest
from PIL import Image

from page4d.errors import MissingBackendError, Page4DError, UsageError
from page4d_engines.clip import image_file, listing
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_export.sample_scene.clip import render, save

VIEWS, TIMES = UngroupedImages.VIEWS, UngroupedImages.TIMES


def images(folder, *names, size=(20, 16), value=60):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("p0.png", "p1.png", "p2.png"):
        Image.new("RGB", size, (value, 9, 9)).save(folder / name)
    return folder


def video(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        track = container.add_stream("ffv1", rate=10)
        track.width, track.height, track.pix_fmt = 20, 16, "bgr0"
        for _ in range(3):
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((16, 20, 3), np.uint8), format="rgb24")))
        container.mux(track.encode())
    return path


@pytest.fixture
def clip(tmp_path):
    save(render(3, 2, 20, 16), tmp_path / "clip")
    return tmp_path / "clip"


def refusal(call, *parts, kind=UsageError):
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert str(part) in str(caught.value), f"{part!r} not in:\n{caught.value}"


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
    found = FrameFolder.open(tmp_path, **{kind: tmp_path / kind}, loose=loose)
    files = found.mask_files if kind == "masks" else found.keypoint_files
    assert [[file.path for file in column] for column in files] == [
        [tmp_path / kind / file.name for file in column] for column in found.frame_files
    ]
    assert len(files) == (3 if loose is VIEWS else 1) and found.notes == ()


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
        found = FrameFolder.open(tmp_path, masks=tmp_path / "masks")
        assert found.camera_names == ("cam0", "cam1") and found.mask_files is not None


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
    found = FrameFolder.open(tmp_path, loose=VIEWS)
    assert found.camera_names == ("p0", "p1", "p2") and found.notes == ()


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
    found = FrameFolder.open(tmp_path, loose=VIEWS)
    assert len(found.camera_names) == 3 and found.notes == ()


def test_videos_beside_folders(tmp_path):
    """A folder named as the video that its images came from goes before it; any other is another reading."""
    video(tmp_path / "cam0.mkv")
    images(tmp_path / "thumbs")
    refusal(lambda: FrameFolder.open(tmp_path), "either may be the cameras", "cam0.mkv", "thumbs")
    (tmp_path / "thumbs").rename(tmp_path / "cam0")
    found = FrameFolder.open(tmp_path)
    assert (
        found.frame_files[0][0].name == "p0.png" and "cam0.mkv beside the cameras' folders was not read" in found.notes
    )
    shutil.rmtree(tmp_path / "cam0")
    (tmp_path / "out").mkdir()
    found = FrameFolder.open(tmp_path)
    assert found.camera_names == ("cam0",) and found.count == 3 and found.notes == ()


def test_folders_inside_a_camera_are_said_to_be_passed_over(tmp_path):
    images(images(tmp_path / "cam0") / "thumbs")
    found = FrameFolder.open(tmp_path)
    assert found.camera_names == ("cam0",) and found.count == 3
    assert found.notes == ("folders of camera cam0 were not read: thumbs",)
    images(tmp_path / "cam1" / "images")
    refusal(lambda: FrameFolder.open(tmp_path), "camera cam1 has no images", "its images lie deeper, in images/")


def test_images_that_no_engine_of_several_times_and_views_reads_are_named(clip):
    Image.new("RGB", (9, 9)).save(clip / "frames" / "preview.png")
    found = FrameFolder.open(clip)
    assert found.camera_names == ("cam0", "cam1") and found.notes == (
        "preview.png beside the cameras' folders was not read",
    )


# ---- `images` as other projects have it


def test_a_folder_called_images_is_the_folder_of_the_frames(tmp_path):
    images(tmp_path / "images")
    assert FrameFolder.open(tmp_path, loose=VIEWS).camera_names == ("p0", "p1", "p2")
    found = FrameFolder.open(tmp_path, loose=TIMES)
    assert found.camera_names == ("images",) and found.count == 3
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
    found = FrameFolder.open(tmp_path)
    assert found.camera_names == ("cam0", "cam1") and found.mask_files is not None


# ---- kinds that are not read


def test_files_of_other_kinds_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "reads_heic", lambda: False)
    images(tmp_path)
    for name in ("a.gif", "b.GIF", "c.TIF", "d.HEIC", "e.webp", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = FrameFolder.open(tmp_path, loose=VIEWS).notes
    assert (
        "2 .gif, 1 .heic, 1 .tif, 1 .webp" in note
        and 'pip install "page4d[heic]"' in note
        and "convert the others" in note
    )


def test_files_of_other_kinds_in_cameras(clip):
    for name in ("cam0", "cam1"):
        (clip / "frames" / name / "a.bmp").write_bytes(b"x")
    (note,) = FrameFolder.open(clip).notes
    assert "2 .bmp" in note and "convert them" in note


def test_where_all_are_of_another_kind_the_error_counts_them(tmp_path, monkeypatch, clip):
    monkeypatch.setattr(image_file, "reads_heic", lambda: False)
    refusal(lambda: FrameFolder.open(_with(tmp_path / "w", "a.webp")), "1 .webp", "convert")
    refusal(
        lambda: FrameFolder.open(_with(tmp_path / "h", "a.HEIC"), loose=VIEWS),
        "pillow-heif",
        'pip install "page4d[heic]"',
        kind=MissingBackendError,
    )
    refusal(
        lambda: FrameFolder.open(_with(tmp_path / "c" / "cam0", "a.heif").parent),
        "pillow-heif",
        kind=MissingBackendError,
    )
    (clip / "masks" / "cam0" / "000001.png").rename(clip / "masks" / "cam0" / "000001.tif")
    refusal(lambda: FrameFolder.open(clip), "no mask for frame 000001.png", "1 .tif")


def _with(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


# ---- what is no file, or leads nowhere


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def bound(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def loop(path):
    path.symlink_to(path.name)


def nowhere(path):
    path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("make", [fifo, device, bound, loop, nowhere])
@pytest.mark.parametrize(
    "place", ["frames/cam1/000001.png", "masks/cam1/000001.png", "cameras.json", "frames/cam1.mp4", "masks", "frames"]
)
def test_what_is_no_regular_file_is_an_error_and_never_waited_for(tmp_path, monkeypatch, make, place):
    save(render(3, 2, 20, 16), tmp_path / "clip")
    monkeypatch.chdir(tmp_path / "clip")  # a socket's name is short
    path = pathlib.Path(place)
    if path.suffix == ".mp4":
        shutil.rmtree("frames")
        path.parent.mkdir()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)
    refusal(lambda: FrameFolder.open("."), path.stem if path.suffix else f"the path of the {place} is not a folder")


def test_a_broken_link_to_a_camera_is_named(clip):
    nowhere(clip / "frames" / "cam2")
    assert FrameFolder.open(clip).notes == (f"links in {clip / 'frames'} lead nowhere: cam2",)


def test_links_back_up_end(tmp_path):
    images(tmp_path / "photos")
    (tmp_path / "photos" / "self").symlink_to(".")
    (tmp_path / "photos" / "up").symlink_to("..")
    assert len(FrameFolder.open(tmp_path / "photos", loose=VIEWS).camera_names) == 3


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000], ids=["null", "long"])
def test_paths_that_cannot_be(clip, path):
    for call in (
        lambda: FrameFolder.open(path),
        lambda: FrameFolder.open(clip, masks=path),
        lambda: FrameFolder.open(clip, cameras=path),
    ):
        with pytest.raises(UsageError):
            call()


def test_a_folder_that_may_not_be_read(clip, monkeypatch):
    """Root reads any: so the system says it in its place."""
    really = os.scandir

    def denied(path):
        if pathlib.Path(path).name == "cam1":
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(listing.os, "scandir", denied)
    refusal(lambda: FrameFolder.open(clip), "the folder cannot be read: Permission denied", clip / "frames" / "cam1")


# ---- names


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_with_accents_match_however_they_are_spelled(clip, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (clip / "frames" / "cam0").rename(clip / "frames" / unicodedata.normalize(form, "Tür"))
    (clip / "masks" / "cam0").rename(clip / "masks" / unicodedata.normalize(other, "Tür"))
    (clip / "masks" / "cam1" / "000001.png").rename(clip / "masks" / "cam1" / unicodedata.normalize(other, "fünf.png"))
    for folder in ("frames/cam1", unicodedata.normalize(form, "frames/Tür")):
        (clip / folder / "000001.png").rename(clip / folder / unicodedata.normalize(form, "fünf.png"))
    (clip / unicodedata.normalize(other, "masks/Tür") / "000001.png").rename(
        clip / unicodedata.normalize(other, "masks/Tür") / "fünf.png"
    )
    content = json.loads((clip / "cameras.json").read_text())
    (clip / "cameras.json").write_text(
        json.dumps({unicodedata.normalize(other, "Tür"): content["cam0"], "cam1": content["cam1"]})
    )
    found = FrameFolder.open(clip)
    assert list(found.cameras) == list(found.camera_names) and found.mask_files is not None


def test_names_that_are_no_utf_8_are_spelled_out(tmp_path, made):
    """From the folder to the files of a run."""
    folder = made("pi3").folder
    images(tmp_path / "photos", size=(70, 56))
    os.rename(tmp_path / "photos" / "p0.png", os.fsencode(tmp_path / "photos") + b"/caf\xe9.png")
    os.rename(tmp_path / "photos", os.fsencode(tmp_path) + b"/f\xfcnf")
    command = [
        sys.executable,
        "-c",
        "from page4d_engines.cli import main; main()",
        str(folder),
        os.fsencode(tmp_path) + b"/f\xfcnf",
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cameras"] == [r"caf\xe9", "p1", "p2"] and summary["frames"].endswith(r"f\xfcnf")
    assert (tmp_path / "out" / "depth" / r"caf\xe9.png").is_file()


def test_any_tree_of_files_is_a_clip_or_an_error(tmp_path):
    """Random folders of images, videos, links and junk."""
    rng = np.random.default_rng(0)
    image, film = images(tmp_path / "one", "p.png") / "p.png", video(tmp_path / "film.mkv")
    names = (
        "cam0",
        "cam1",
        "masks",
        "frames",
        "images",
        "keypoints",
        "out",
        "p0.png",
        "p1.png",
        "a.mkv",
        "b.HEIC",
        "c.gif",
        "loop",
        "gone",
        "pipe.png",
        "cameras.json",
    )
    opened = 0
    for number in range(150):
        root = tmp_path / f"tree{number}"
        folders = [root]
        root.mkdir()
        for name in rng.permutation(names)[: rng.integers(1, len(names))]:
            path = folders[rng.integers(len(folders))] / name
            if "." not in name and name not in ("loop", "gone"):
                path.mkdir()
                folders.append(path)
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
                found = FrameFolder.open(root, loose=loose)
            except Page4DError:
                continue
            opened += 1
            assert found.count >= 1 and len(found.camera_names) == len(found.frame_files) >= 1
    assert opened > 20
