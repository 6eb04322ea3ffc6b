"""The C++ example `offline` writes what page4d-run writes, file by file."""

import json
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d.manifest_file import read_manifest
from page4d_engines.ort import cpu_engine
from tests.support.exports import by_time
from tests.support.offline_runs import (
    Checksums,
    clip_of,
    cpp_run,
    encoded,
    files,
    keypoints_for,
    refused_alike,
    same_run,
    vertices,
)

W, H = 70, 56  # of the engines


@pytest.fixture(scope="session")
def offline_binary(cpp):
    return cpp / "examples" / "offline" / "offline"


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    monkeypatch.setattr(cpu_engine, "OrtEngine", Checksums)


# ---- whole runs


@pytest.mark.parametrize("variant", ["default", "memory", "late"])
def test_masks_tokens_and_summary(offline_binary, made, tmp_path, variant):
    clip = clip_of(tmp_path / "clip", 7, 2, 100, 80)
    keypoints_for(clip)
    same_run(offline_binary, made(variant).folder, clip, tmp_path, stride=2)
    page = (tmp_path / "cpp" / "report.html").read_text()
    for path in (tmp_path / "cpp" / "masks").rglob("*.png"):
        assert f'src="{path.relative_to(tmp_path / "cpp").as_posix()}"' in page
    assert "time_sa.0" in page and "http" not in page.replace("<!doctype html>", "")


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_that_overlap(offline_binary, made, tmp_path, stride):
    """The encoder sees new times alone on both sides, and what lies in its place comes from the window before."""
    (tmp_path / "engines").mkdir()
    engines = by_time(made("memory"), tmp_path / "engines").folder
    clip = clip_of(tmp_path / "clip", 6, 2, 100, 80)
    keypoints_for(clip)
    same_run(offline_binary, engines, clip, tmp_path, stride=stride)
    flop = json.loads((tmp_path / "cpp" / "summary.json").read_text())["stage_flop"]["encoder"]
    encoder = read_manifest(engines).stage("encoder")
    assert encoder.calls == 3 and flop == encoder.flop * 6, (
        "each time once, also in a last window that begins less than a stride later"
    )


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_another_aspect_ratio(offline_binary, made, tmp_path, fit):
    same_run(offline_binary, made("default").folder, clip_of(tmp_path / "clip", 3, 2, 111, 52), tmp_path, fit=fit)


def test_without_what_lies_beside(offline_binary, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    shutil.rmtree(clip / "masks")
    (clip / "cameras.json").unlink()
    done = same_run(offline_binary, made("default").folder, clip / "frames", tmp_path)
    assert "note: no external masks were given: the mask is the network's alone" in done.stderr


def test_16_bits(offline_binary, made, tmp_path):
    same_run(offline_binary, made("default", "float16").folder, clip_of(tmp_path / "clip", 3, 2, 100, 80), tmp_path)
    layer = next(
        name for name in load_file(next((tmp_path / "cpp").glob("*.safetensors"))) if name.startswith("layers.")
    )
    assert load_file(next((tmp_path / "cpp").glob("*.safetensors")))[layer].dtype == np.float16


def test_json_is_the_summary(offline_binary, made, tmp_path):
    clip = clip_of(tmp_path / "clip", 3, 2, 100, 80)
    command = [
        str(offline_binary),
        str(made("default").folder),
        str(clip),
        "-o",
        str(tmp_path / "out"),
        "--backend=test",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "summary.json").read_text())


@pytest.mark.parametrize("loose", [True, False], ids=["photos", "cameras"])
def test_points_cameras_and_depth(offline_binary, made, tmp_path, loose):
    clip = clip_of(tmp_path / "clip", 1 if loose else 2, 3, 96, 80)
    frames = clip
    if loose:
        frames = tmp_path / "photos"
        frames.mkdir()
        for v in range(3):
            (clip / "frames" / f"cam{v}" / "000000.png").rename(frames / f"photo{v}.png")
    same_run(offline_binary, made("pi3").folder, frames, tmp_path, fit="pad", min_confidence=0.6)
    assert len(vertices(next((tmp_path / "cpp").rglob("points.ply")))[1]) > 100


def test_nothing_is_replaced(offline_binary, made, tmp_path):
    engines, clip = made("default").folder, clip_of(tmp_path / "clip", 3, 2, 100, 80)
    (tmp_path / "out").mkdir()
    assert cpp_run(offline_binary, engines, clip, tmp_path / "out").returncode == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "summary.json").write_text("{}")
    for out in (tmp_path / "mine", tmp_path / "out"):
        done = cpp_run(offline_binary, engines, clip, out)
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, "page4d: -o is not empty")
    for out in (tmp_path / "mine" / "summary.json", tmp_path / "no" / "where"):
        refused_alike(offline_binary, engines, clip, out)
    assert files(tmp_path / "mine") == ["summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "mine", "out"]


# ---- images


def raw_png(depth, kind, samples, palette=b""):
    """A PNG of the very type; `samples`: bytes of all rows, as stored."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    pitch = (W * channels * depth + 7) // 8
    rows = b"".join(b"\0" + samples[pitch * y : pitch * (y + 1)] for y in range(H))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + (chunk(b"PLTE", palette) if palette else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def every_kind(seed):
    """Files of W x H, by name."""
    rng = np.random.default_rng(seed)
    random = rng.bytes(W * H * 8)
    slopes = np.stack(np.meshgrid(np.linspace(0, 255, W), np.linspace(255, 0, H)), -1)
    scene = Image.fromarray(np.concatenate((slopes, rng.random((H, W, 1)) * 255), -1).astype(np.uint8))
    for depth, kind in [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]:
        yield f"depth{depth}_type{kind}.png", raw_png(depth, kind, random)
    for depth in (1, 2, 4, 8):
        yield f"palette{depth}.png", raw_png(depth, 3, random, rng.bytes(3 << depth))
    for mode in ("L", "RGB", "CMYK"):
        for quality in (30, 95):
            yield f"{mode}{quality}.jpg", encoded(scene.convert(mode), "JPEG", quality=quality)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            yield (
                f"sampling{subsampling}{progressive}.jpg",
                encoded(scene, "JPEG", subsampling=subsampling, progressive=progressive, quality=80),
            )
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = scene if orientation < 5 else scene.resize((H, W))
        yield f"turned{orientation}.jpg", encoded(stored, "JPEG", exif=exif)
        yield f"turned{orientation}.png", encoded(stored, "PNG", exif=exif)


def test_every_kind_of_image_is_read_as_pillow_reads_it(offline_binary, made, tmp_path):
    """As frame and as mask, those with transparency as frames alone; each in a window of its own, so that a wrong one
    is named."""
    for v in range(2):
        for name, content in every_kind(v):
            for kind in ("frames", "masks"):
                if kind == "masks" and name.endswith(("type4.png", "type6.png")):
                    content = raw_png(8, 0, bytes(W * H))
                (tmp_path / "clip" / kind / f"cam{v}").mkdir(parents=True, exist_ok=True)
                (tmp_path / "clip" / kind / f"cam{v}" / name.replace(".", f"_{name[-3:]}.")).write_bytes(content)
    same_run(offline_binary, made("default").folder, tmp_path / "clip", tmp_path)


def test_a_filmed_clip(offline_binary, made, real_clip, tmp_path):
    for kind in ("frames", "masks"):
        for v in range(2):
            shutil.copytree(real_clip / kind / f"cam{v}", tmp_path / "clip" / kind / f"cam{v}")
    same_run(offline_binary, made("default").folder, tmp_path / "clip", tmp_path, fit="crop")
