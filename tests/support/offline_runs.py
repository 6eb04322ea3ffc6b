"""The C++ example `offline` beside page4d-run's own code, over engines that compute checksums on both sides: equal
results mean equal inputs."""

import io
import json
import shutil
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d.cameras import read_cameras
from page4d.errors import Page4DError
from page4d.manifest import read_manifest
from page4d_engines.backend import Backend
from page4d_engines.clip.fit import FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_export.sample_scene.clip import render, save

GUESSED = (
    "seconds",
    "bytes",
    "engines",
    "frames",
    "backend",
)  # ends of names in a summary that are not the same in two programs


class Checksums:
    """In place of `OrtEngine`: what the backend `test` of the C++ runtime computes."""

    def __init__(self, path, pool=None, rounding=False):
        manifest = read_manifest(path.parent.parent if path.parent.name == "onnx" else path.parent)
        (self.entry,) = [entry for entry in manifest.stages if path.match(entry.file)]

    def bind(self, inputs, outputs):
        def numbers_of(digest, count):
            return (digest + np.arange(count, dtype=np.uint64) * 2654435761) % 2**32 >> 24

        def encode():
            images, special = (inputs[spec.binding] for spec in self.entry.inputs)
            tokens = next(iter(outputs.values())).reshape(len(special), -1, special.shape[-1])
            tokens[:, : special.shape[1]] = special
            for image, made in zip(images, tokens[:, special.shape[1] :], strict=True):
                made[...] = (
                    numbers_of(zlib.crc32(np.ascontiguousarray(image).tobytes()), made.size).reshape(made.shape) / 256
                )

        def call():
            digest = 0
            for spec in self.entry.inputs:
                value = inputs[spec.binding]
                # widened on this side alone; every number is one that the engines' own type has
                digest = zlib.crc32(
                    (value.astype(np.float16) if spec.dtype == "float16" else np.ascontiguousarray(value)).tobytes(),
                    digest,
                )
            for k, spec in enumerate(self.entry.outputs):
                target = outputs[spec.binding]
                numbers = numbers_of(digest + 40503 * k, target.size)
                target[...] = (numbers if spec.dtype in ("uint8", "int32") else numbers / 256).reshape(target.shape)

        return encode if self.entry.kind == "encoder" else call


def python_run(
    engines, frames, out, stride=None, fit=None, masks=None, cameras=None, keypoints=None, min_confidence=0.1
):
    opened = EngineFolder.open(engines)
    folder = FrameFolder.open(frames, masks, cameras, keypoints, UngroupedImages.of(opened.manifest.shape))
    mode = None if fit is None else FitMode(fit)
    options = RunOptions(stride, mode, Backend.ONNXRUNTIME, ThreadPool.of(1), min_confidence)
    ClipRun.prepare(opened, folder, out, options).run(lambda what, share: None)
    return folder.notes


def cpp_run(binary, engines, frames, out, backend="test", **options):
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [str(binary), str(engines), str(frames), "-o", str(out), "--backend", backend, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def picture(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same_numbers(found, wanted, where=""):
    """Equal structures, their numbers up to 1e-6; what is bound to differ left out."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key, value in wanted.items():
            if not key.endswith(GUESSED):
                same_numbers(found[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, value in enumerate(wanted):
            same_numbers(found[i], value, f"{where}[{i}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6), where
    else:
        assert found == wanted, where


def vertices(path):
    head, _, body = path.read_bytes().partition(b"end_header\n")
    return head, np.frombuffer(body, np.dtype([("place", "<f4", 3), ("colour", "u1", 3), ("confidence", "<f4")]))


def same_folders(found, wanted, notes=()):
    """Two runs' folders; `notes` are about the frames, which Python alone makes."""
    assert files(found) == files(wanted)
    for name in files(wanted):
        one, other = found / name, wanted / name
        if name.endswith(".safetensors"):
            tensors, reference = load_file(one), load_file(other)
            assert set(tensors) == set(reference), name
            for key, value in reference.items():
                # the numbers of 16-bit engines are float32 on this side
                same = (
                    np.allclose(tensors[key], value, rtol=1e-9, atol=1e-12, equal_nan=True)
                    if key == "camera"
                    else (tensors[key] == value).all()
                )
                assert tensors[key].shape == value.shape and same, f"{name}: {key}"
        elif name.endswith(".png"):
            (mode, pixels), (wanted_mode, wanted_pixels) = picture(one), picture(other)
            assert mode == wanted_mode and (pixels == wanted_pixels).all(), name
        elif name.endswith(".ply"):
            (head, points), (wanted_head, wanted_points) = vertices(one), vertices(other)
            assert head == wanted_head and (points["colour"] == wanted_points["colour"]).all()
            np.testing.assert_allclose(points["place"], wanted_points["place"], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(points["confidence"], wanted_points["confidence"], rtol=1e-6)
        elif name.endswith(".json"):
            content, reference = json.loads(one.read_text()), json.loads(other.read_text())
            if name == "summary.json":  # said of ONNX Runtime, which is on this side alone
                reference["warnings"] = [
                    text
                    for text in reference["warnings"]
                    if not text.startswith("this machine computes") and text not in notes
                ]
            same_numbers(content, reference, name)
            if name.endswith("cameras.json"):
                assert read_cameras(one).keys() == read_cameras(other).keys()
        else:
            assert name == "report.html"


def same_run(binary, engines, frames, place, **options):
    done = cpp_run(binary, engines, frames, place / "cpp", **options)
    assert done.returncode == 0, done.stderr
    notes = python_run(engines, frames, place / "python", **options)
    same_folders(place / "cpp", place / "python", notes)
    return done


def clip_of(folder, T, V, width, height):
    save(render(T, V, width, height, seed=2), folder)
    return folder


def keypoints_for(folder):
    shutil.copytree(folder / "masks", folder / "keypoints")
    for file in (folder / "keypoints").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)


def refused_alike(binary, engines, frames, out, **options):
    """The same code and the same first line: what was wrong."""
    done = cpp_run(binary, engines, frames, out, **options)
    with pytest.raises(Page4DError) as caught:
        python_run(engines, frames, out, **options)
    assert done.stderr.splitlines()[0] == f"page4d: {caught.value.what}"
    assert done.returncode == caught.value.exit_code and done.stdout == ""


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
