"""Clips with absent images through the C++ runtime and through Python's `Pipeline`."""

import json

import numpy as np

from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.clip.fit import Fit
from tests.support.cpp.parity_runs import cpp_run, onnxruntime_library, same_points, same_tensor


class HoledClip:
    """Images of the engines' size, maps and cameras, of which some images are absent: of several views never all.

    The pixels of absent images are noise to C++, and black to Python: nothing may depend on them.
    """

    def __init__(self, engines, count):
        self.manifest = read_manifest(engines)
        layout = self.manifest.layout
        rng = np.random.default_rng(7)
        self.images = rng.integers(0, 256, (count, layout.V, layout.H, layout.W, 3), np.uint8)
        self.present = rng.random((count, layout.V)) < 0.6
        if layout.V > 1:
            self.present[np.arange(count), rng.integers(0, layout.V, count)] = True
        else:
            self.present[1::2] = True
        self.present[0, 0] = False
        self.present[0, 1:2] = True
        self.maps = {
            kind: rng.integers(0, 256, self.images.shape[:-1], np.uint8)
            for kind, name in (("masks", "mask_ext"), ("keypoints", "keypoints"))
            if self.manifest.reads(name)
        }
        takes_cameras = self.manifest.reads("fundamental") or self.manifest.knows_cameras
        self.cameras = {f"cam{v}": self._camera(v) for v in range(layout.V)} if takes_cameras else {}

    def _camera(self, v):
        # products of these poses are exact: checksums of the encoded cameras see the last bit
        layout, (cos, sin) = self.manifest.layout, ((1, 0), (0, 1), (-1, 0), (0, -1))[v % 4]
        rotation = [[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]
        pose = [[*row, shift] for row, shift in zip(rotation, (0.5 * v, 0.125 * v * v, 0.25), strict=True)]
        K = [[60, 0, layout.W / 2], [0, 60, layout.H / 2], [0, 0, 1]]
        return {"width": layout.W, "height": layout.H, "K": K, "world_to_camera": pose}

    def write(self, folder, info):
        """As the C++ program reads it."""
        folder.mkdir()
        layout = self.manifest.layout
        (folder / "images").write_bytes(self.images.tobytes())
        (folder / "present").write_bytes(self.present.astype(np.uint8).tobytes())
        for kind, maps in self.maps.items():
            (folder / kind).write_bytes(maps.tobytes())
        sizes = {"width": layout.W, "height": layout.H, "fit": "none", "cameras": list(self.cameras.values())}
        (folder / "clip.json").write_text(json.dumps(sizes | info))

    def window(self, start):
        """The arguments of `Pipeline.run`."""
        layout = self.manifest.layout
        rows = slice(start, start + layout.T)
        present = self.present[rows]
        fit = Fit.choose((layout.W, layout.H), layout, None)
        arguments = {"images": self.images[rows] * present[..., None, None, None], "present": present}
        for kind, name in (("masks", "mask_ext"), ("keypoints", "keypoints")):
            if kind in self.maps:
                means = np.stack([[fit.patch_mean(image) for image in time] for time in self.maps[kind][rows]])
                arguments[name] = means.reshape(layout.patch_map_shape) * present[..., None, None]
        return arguments | ({"cameras": self.cameras} if self.cameras else {})


def same_absent_runs(parity, engines, place, backend, stride=None):
    """Every output of every window in both languages; Python's windows."""
    layout = read_manifest(engines).layout
    stride = layout.T if stride is None else stride
    clip, starts = HoledClip(engines, layout.T + 3 * stride), [number * stride for number in range(4)]
    sliding = stride < layout.T
    info = {"starts": starts, "sliding": sliding, "backend": backend, "library": onnxruntime_library()}
    clip.write(place / "raw", info)
    done = cpp_run(parity, engines, place / "raw", place / "cpp")
    assert done.returncode == 0, done.stderr
    pipeline = Pipeline.load(engines, Backend.ONNXRUNTIME, threads=1, sliding=sliding)
    windows, memory = [], None
    for number, start in enumerate(starts):
        shared = layout.T - stride if sliding and number > 0 else 0
        result = pipeline.run(**clip.window(start), memory=memory, shared=shared)
        memory = None if result.memory is None else result.memory.copy()
        windows.append({name: np.array(tensor) for name, tensor in result.tensors().items()})
        files = {path.name: path.read_bytes() for path in (place / "cpp" / str(number)).iterdir()}
        world = files.pop("world_points", None)
        assert files.keys() == windows[-1].keys()
        for name, tensor in windows[-1].items():
            same_tensor(files[name], tensor, f"{name} of window {number}")
        if world is not None:
            same_points(world, windows[-1], clip.manifest.points_frame, f"window {number}")
        _is_left_out(windows[-1], clip.present[start : start + layout.T])
    return windows


def _is_left_out(tensors, present):
    """NaN wherever an image is absent, numbers elsewhere; tokens are numbers."""
    for name, tensor in tensors.items():
        if name.startswith("layers.") or name in ("memory", "metric"):
            assert np.isfinite(tensor).all(), name
        else:
            assert np.isnan(tensor[~present]).all(), name
            assert np.isfinite(tensor[present]).any(), name
