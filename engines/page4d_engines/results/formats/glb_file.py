"""`GlbFile`: a glTF 2.0 file with its arrays inside, built part by part."""

from __future__ import annotations

import json
import pathlib
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.files import write_atomically

POINTS, LINES = 0, 1  # modes of a primitive
_TYPES = {"<f4": 5126, "|u1": 5121}  # of components
_SHAPES = {3: "VEC3", 4: "VEC4"}
_VERTICES = 34962  # what a view is for
_SRGB = np.arange(256) / 255
# 16 bits would keep all dark steps apart, but not every reader takes them for colours
_LINEAR = np.rint(255 * np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)).astype(np.uint8)


@dataclass
class GlbFile:
    """Lists of the document's parts, which name each other by their places in the lists."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    meshes: list[dict[str, Any]] = field(default_factory=list)
    cameras: list[dict[str, Any]] = field(default_factory=list)
    materials: list[dict[str, Any]] = field(default_factory=list)
    _accessors: list[dict[str, Any]] = field(default_factory=list)
    _views: list[dict[str, Any]] = field(default_factory=list)
    _buffer: bytearray = field(default_factory=bytearray)

    def positions(self, values: NDArray[np.float32]) -> int:
        """An accessor of positions `[n,3]`, n above 0, with the bounds that they must have."""
        number = self._accessor(values.astype("<f4"))
        self._accessors[number] |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return number

    def colours(self, values: NDArray[np.uint8]) -> int:
        """An accessor of sRGB colours `[n,3]`, which become linear, as glTF has them."""
        linear = np.concatenate([_LINEAR[values], np.full((len(values), 1), 255, np.uint8)], 1)
        return self._accessor(linear, normalized=True)

    def write(self, path: pathlib.Path, roots: list[int], generator: str) -> None:
        """Write the file, whole or not at all.

        Args:
            path: of the file.
            roots: numbers of the nodes that no other node holds.
            generator: what the file says that it was written by.
        """
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": generator},
            "scene": 0,
            "scenes": [{"nodes": roots}],
        }
        lists = {
            "nodes": self.nodes,
            "meshes": self.meshes,
            "cameras": self.cameras,
            "materials": self.materials,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._buffer)}] if self._buffer else [],
        }
        document |= {name: content for name, content in lists.items() if content}  # empty ones are not allowed
        if self.materials:
            document["extensionsUsed"] = ["KHR_materials_unlit"]
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = [struct.pack("<I4s", len(text), b"JSON") + text]
        if self._buffer:
            chunks += [struct.pack("<I4s", len(self._buffer), b"BIN\0"), bytes(self._buffer)]
        size = 12 + sum(map(len, chunks))
        write_atomically(path, b"".join([struct.pack("<4sII", b"glTF", 2, size), *chunks]))

    def _accessor(self, values: NDArray[Any], normalized: bool = False) -> int:
        self._views.append(
            {"buffer": 0, "byteOffset": len(self._buffer), "byteLength": values.nbytes, "target": _VERTICES}
        )
        self._buffer += values.tobytes()
        self._buffer += b"\0" * (-len(self._buffer) % 4)
        accessor: dict[str, Any] = {
            "bufferView": len(self._views) - 1,
            "componentType": _TYPES[values.dtype.str],
            "count": len(values),
            "type": _SHAPES[values.shape[1]],
        }
        self._accessors.append(accessor | ({"normalized": True} if normalized else {}))
        return len(self._accessors) - 1
