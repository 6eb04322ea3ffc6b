"""Files that are no frames: of other kinds, no regular files, links that lead nowhere, odd names."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import unicodedata

import pytest

from page4d.errors import MissingBackendError, UsageError
from page4d_engines.clip import image_file, listing
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_export.sample_scene.clip import render, save
from tests.support.clips import images, refusal
from tests.support.commands import program

VIEWS, TIMES = UngroupedImages.VIEWS, UngroupedImages.TIMES


# ---- kinds that are not read


def test_files_of_other_kinds_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "reads_heic", lambda: False)
    images(tmp_path)
    for name in ("a.gif", "b.GIF", "c.TIF", "d.HEIC", "e.webp", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = FrameFolder.open(tmp_path, loose=VIEWS).notes
    assert "2 .gif, 1 .heic, 1 .tif, 1 .webp" in note and 'pip install "page4d[heic]"' in note
    assert "convert the others" in note


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
    frames = FrameFolder.open(clip)
    assert list(frames.cameras) == list(frames.camera_names) and frames.mask_files is not None


def test_names_that_are_no_utf_8_are_spelled_out(tmp_path, made):
    """From the folder to the files of a run."""
    folder = made("pi3").folder
    images(tmp_path / "photos", size=(70, 56))
    os.rename(tmp_path / "photos" / "p0.png", os.fsencode(tmp_path / "photos") + b"/caf\xe9.png")
    os.rename(tmp_path / "photos", os.fsencode(tmp_path) + b"/f\xfcnf")
    command = [*program("page4d-run"), folder, os.fsencode(tmp_path) + b"/f\xfcnf", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cameras"] == [r"caf\xe9", "p1", "p2"] and summary["frames"].endswith(r"f\xfcnf")
    assert (tmp_path / "out" / "depth" / r"caf\xe9.png").is_file()
