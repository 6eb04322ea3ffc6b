"""The C++ runtime beside page4d-run's own code, over engines that compute checksums of their inputs on both sides."""

import json
import pathlib
import shutil
import subprocess
import zlib

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from page4d.manifest_checks.manifest_file import read_manifest
from page4d.network.poses import world_points
from page4d.system.progress import SILENT
from page4d_engines.backend import Backend
from page4d_engines.clip.fit import FitMode
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import windows
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_export.sample_scene.clip import render, save


class Checksums:
    """In place of `OrtEngine`: what `Backend::kTest` of the C++ runtime computes."""

    def __init__(self, entry):
        self.entry = entry

    @classmethod
    def of_stage(cls, folder, entry, pool=None, rounding=False):
        return cls(entry)

    def bind(self, inputs, outputs):
        def elements(digest, count):
            return (digest + np.arange(count, dtype=np.uint64) * 2654435761) % 2**32 >> 24

        def encode():
            images, special = (inputs[spec.binding] for spec in self.entry.inputs)
            tokens, *others = (outputs[spec.binding] for spec in self.entry.outputs)
            tokens = tokens.reshape(len(special), -1, special.shape[-1])
            tokens[:, : special.shape[1]] = special
            for number, image in enumerate(images):
                digest = zlib.crc32(np.ascontiguousarray(image).tobytes())
                for k, target in enumerate((tokens[number, special.shape[1] :], *(array[number] for array in others))):
                    target[...] = elements(digest + 40503 * k, target.size).reshape(target.shape) / 256

        def call():
            digest = 0
            for spec in self.entry.inputs:
                value = inputs[spec.binding]
                if spec.dtype == "float16":  # widened on this side alone; float16 has every value
                    value = value.astype(np.float16)
                digest = zlib.crc32(np.ascontiguousarray(value).tobytes(), digest)
            for k, spec in enumerate(self.entry.outputs):
                target = outputs[spec.binding]
                values = elements(digest + 40503 * k, target.size)
                target[...] = (values if spec.dtype in ("uint8", "int32") else values / 256).reshape(target.shape)

        return encode if any(spec.name == "special" for spec in self.entry.inputs) else call


def python_run(engines, frames, out, stride=None, fit=None, backend=Backend.ONNXRUNTIME):
    """Every window's tensors, by name."""
    options = RunOptions(stride, None if fit is None else FitMode(fit), backend, ThreadPool.of(1))
    ClipRun.prepare(EngineFolder.open(engines), frames, out, options).run(SILENT)
    return [load_file(path) for path in sorted(out.glob("*.safetensors"))]


def write_raw(folder, frames, info, left_out=()):
    """A `FrameFolder` as the C++ program reads it."""
    folder.mkdir()
    places = [(t, v) for t in range(frames.count) for v in range(len(frames.camera_names))]
    kinds = {"images": lambda t, v: np.asarray(frames.image(t, v))}
    if frames.mask_files is not None:
        kinds["masks"] = frames.mask
    if frames.keypoint_files is not None:
        kinds["keypoints"] = frames.keypoints
    for kind in kinds.keys() - set(left_out):
        read = kinds[kind]
        (folder / kind).write_bytes(b"".join(read(t, v).tobytes() for t, v in places))
    cameras = [camera.to_mapping() for camera in (frames.cameras or {}).values()]
    width, height = frames.size
    (folder / "clip.json").write_text(json.dumps({"width": width, "height": height, "cameras": cameras} | info))


def cpp_run(parity, engines, clip, out):
    out.mkdir()
    return subprocess.run([parity, engines, clip, out], capture_output=True, text=True, timeout=120)


def same_runs(parity, engines, frames, place, stride=None, fit=None, backend="test"):
    """Run a clip in both languages and compare every output of every window; Python's windows."""
    manifest = read_manifest(engines)
    layout = manifest.layout
    frames = FrameFolder.open(frames, loose=UngroupedImages.of(layout))
    starts = [window.start for window in windows(frames.count, layout.T, stride or layout.T)]
    sliding = stride is not None and stride < layout.T
    info = {
        "starts": starts,
        "fit": fit or "none",
        "sliding": sliding,
        "backend": backend,
        "library": onnxruntime_library(),
    }
    unread = [kind for kind, name in (("masks", "mask_ext"), ("keypoints", "keypoints")) if not manifest.reads(name)]
    write_raw(place / "raw", frames, info, unread)
    done = cpp_run(parity, engines, place / "raw", place / "cpp")
    assert done.returncode == 0, done.stderr
    python_backend = Backend.ONNXRUNTIME if backend == "test" else Backend(backend)  # that of checksums
    expected = python_run(engines, frames, place / "python", stride, fit, python_backend)
    assert len(expected) == len(starts)
    for number, tensors in enumerate(expected):
        files = {path.name: path.read_bytes() for path in (place / "cpp" / str(number)).iterdir()}
        if "points" in tensors or {"depth", "camera"} <= tensors.keys():
            same_points(files.pop("world_points"), tensors, manifest.points_frame, f"window {number}")
        assert files.keys() == tensors.keys()
        for name, tensor in tensors.items():
            same_tensor(files[name], tensor, f"{name} of window {number}")
    return expected


def same_with_cameras(parity, engines, frames, cameras, place, backend="test"):
    """Run one timestep in both languages with the cameras of a rig and compare every output; Python's."""
    frames = FrameFolder.open(frames, loose=UngroupedImages.of(read_manifest(engines).layout))
    info = {"starts": [0], "fit": "none", "sliding": False, "backend": backend, "library": onnxruntime_library()}
    write_raw(place / "raw", frames, {**info, "cameras": list(cameras.values())}, ["masks", "keypoints"])
    done = cpp_run(parity, engines, place / "raw", place / "cpp")
    assert done.returncode == 0, done.stderr
    images = np.stack([[np.asarray(frames.image(0, v)) for v in range(len(frames.camera_names))]])
    tensors = Pipeline.load(engines, "onnxruntime", threads=1).run(images, cameras=cameras).tensors()
    files = {path.name: path.read_bytes() for path in (place / "cpp" / "0").iterdir()}
    files.pop("world_points", None)
    assert files.keys() == tensors.keys()
    for name, tensor in tensors.items():
        same_tensor(files[name], tensor, name)
    return tensors


def onnxruntime_library():
    """The file in Python's wheel."""
    import onnxruntime

    (file,) = (pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return str(file)


def same_tensor(content, expected, what):
    widened = len(content) < expected.nbytes  # 16 bits, which Python's CPU backend gives out as float32
    actual = np.frombuffer(content, np.float16 if widened else expected.dtype).astype(expected.dtype)
    if what.startswith("intrinsics"):  # by another library's tangent
        np.testing.assert_allclose(actual, expected.ravel(), rtol=1e-15, atol=0, err_msg=what)
    elif expected.dtype == np.float64:  # camera poses, by another library's singular value decomposition
        np.testing.assert_allclose(actual, expected.ravel(), rtol=1e-9, atol=1e-12, err_msg=what)
    else:
        np.testing.assert_array_equal(actual, expected.ravel(), err_msg=what)


def same_points(content, tensors, frame, what):
    """Points in the world: float32 of what Python computes in float64 from its own results."""
    names = ("points", "depth", "camera", "intrinsics")
    points, depth, camera, K = (tensors.get(name) for name in names)
    expected = world_points(points, frame, depth, camera, K).astype(np.float32)
    actual = np.frombuffer(content, np.float32).reshape(expected.shape)
    scale = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=1.2e-7, atol=6e-8 * scale, err_msg=f"points in the world, {what}")


def clip_of(folder, T, V, width, height):
    save(render(T, V, width, height, seed=2), folder)
    return folder


def keypoints_for(folder):
    shutil.copytree(folder / "masks", folder / "keypoints")
    for file in (folder / "keypoints").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
