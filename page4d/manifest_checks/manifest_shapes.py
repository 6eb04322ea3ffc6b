"""`Shapes`: which type and shape each tensor of the chain has.

`engines/cpp/src/manifest_checks/manifest_shapes.cpp` mirrors this.
"""

from __future__ import annotations

from collections.abc import Mapping

from page4d.manifest import KeptLayer, Manifest, StageEntry, TensorSpec
from page4d.manifest_checks.manifest_error import inconsistent
from page4d.manifest_checks.manifest_kinds import FEATURES, LAYER, StagesModel, pattern_of
from page4d.published import QUATERNION_NUMBERS, ROW_NUMBERS


class Shapes:
    """Which shape a tensor has, by its name."""

    def __init__(self, manifest: Manifest, model: StagesModel, kept_layers: Mapping[str, KeptLayer]) -> None:
        layout, n = manifest.layout, manifest.encoder_images
        self.streams = 1
        self._layout, self._width, self._tokens = layout, model.width, manifest.precision.tokens
        self._encoded = (n, layout.N, model.width)
        self._memory: tuple[int, ...] | None = None
        self._takes_chunks = model.takes_chunks
        self._shapes: dict[str, tuple[int, ...]] = {
            "images": (n, layout.H, layout.W, 3),
            "special": (n, layout.special, model.width),
            "select": (n, model.width),
            "present": layout.image_map_shape,
            "cameras": (layout.V, QUATERNION_NUMBERS),
            "metric": (layout.B,),
            "fundamental": layout.fundamental_shape,
            "points": layout.images_shape,
            "confidence": layout.pixel_map_shape,
        }
        self._of_image: dict[str, tuple[int, ...]] = {
            "depth": (layout.H, layout.W),
            "depth_confidence": (layout.H, layout.W),
            "points": (layout.H, layout.W, 3),
            "points_confidence": (layout.H, layout.W),
            "confidence": (layout.H, layout.W),
            "sky": (layout.H, layout.W),
            FEATURES: (layout.P, model.width),
        }
        for name, kept in kept_layers.items():
            channels = model.streams * len(kept.stages) * model.width
            self._shapes[name] = layout.layer_shape(channels)
            self._of_image[name] = (layout.N, channels)

    def check(self, entry: StageEntry, spec: TensorSpec, most_streams: int) -> None:
        """Raise unless a tensor has its type and shape, tokens of as many streams as there are up to `most_streams`."""
        name = spec.name
        if name == "tokens":
            streams = range(self.streams, most_streams + 1)
            allowed = [self._layout.tokens_shape(count, self._width) for count in streams]
            allowed = [self._encoded] if entry.kind == "encoder" else allowed
        elif name == "memory":
            tokens = spec.shape[-2] if len(spec.shape) > 1 else 1  # their number is the first stage's own
            self._memory = self._memory or self._layout.memory_shape(self.streams, tokens, self._width)
            allowed = [self._memory]
        elif name == "camera":
            allowed = [self._layout.pose_shape(numbers) for numbers in (ROW_NUMBERS, QUATERNION_NUMBERS)]
        elif entry.kind == "camera_encoder" and name == "special":
            allowed = [(self._layout.images, self._layout.special, self._width)]
        elif self._takes_chunks(entry) or pattern_of(name) == FEATURES:
            of_image = self._of_image.get(name, self._of_image[FEATURES])
            allowed = [(self._layout.images // entry.calls, *of_image)]
        else:
            allowed = [self._shapes.get(name, self._layout.patch_map_shape)]
        is_tokens = name in ("special", "tokens", "memory") or pattern_of(name) in (LAYER, FEATURES)
        dtype = "uint8" if name in ("images", "present") else self._tokens if is_tokens else "float32"
        if spec.dtype != dtype or spec.shape not in allowed:
            got, shapes = f"{spec.dtype} {list(spec.shape)}", [f"{dtype} {list(shape)}" for shape in allowed]
            raise inconsistent(f"{name} of {entry.name} is not of its layout", got, " or ".join(shapes))
