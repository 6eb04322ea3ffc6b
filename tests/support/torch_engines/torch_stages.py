"""Engines whose stages are the reference model's own modules, behind a manifest that is written by hand.

For what the runtime does between stages and after them, of models that an export may not know.
"""

import dataclasses
import math

import msgspec
import numpy as np
import torch
from safetensors.numpy import save_file

from page4d.config import Head, Published
from page4d.files import sha256
from page4d.manifest import CONSTANTS, KeptLayer, Manifest, PointsFrame, StageEntry, TensorSpec, Unit
from page4d.manifest_checks.manifest_file import read_manifest, write_manifest
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.host_chain import HostChain


class TorchStages:
    """A model's stages for one layout, in float32.

    Args:
        model: Depth Anything 3 or Pi3X.
        layout: of its clips.
        encoder_images, head_images: images of a call.
    """

    def __init__(self, model, layout, encoder_images=1, head_images=1):
        self.model, self.config = model, model.config
        self.layout = dataclasses.replace(layout, registers=self.config.registers)
        self.n, self.head_images = encoder_images, head_images
        self.functions = {}
        self.manifest = self._manifest()

    def write(self, folder):
        """The engine folder; its ONNX files are empty, which `EngineFolder.open` would refuse."""
        (folder / "onnx").mkdir(parents=True)
        for entry in self.manifest.stages:
            (folder / entry.file).write_bytes(b"")
        if self.manifest.constants:
            save_file({"special": self.model.special(self.layout).numpy()}, folder / CONSTANTS)
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in (folder / "onnx").iterdir()}
        write_manifest(folder, msgspec.structs.replace(self.manifest, files=files))
        return EngineFolder(folder, read_manifest(folder))

    def pipeline(self, folder, sliding=False):
        """Loaded on numpy memory."""
        opened = self.write(folder)

        def load(constants):
            return HostChain(opened, constants, self.engine, "torch", sliding)

        return Pipeline(opened, Backend.ONNXRUNTIME, load)

    def engine(self, entry):
        """Of a stage, by its name."""
        return _Engine(self.functions[entry.name])

    def _manifest(self):
        stages = [StageEntry(**fields) for fields in self._stages()]
        points = any(spec.name == "points" for entry in stages for spec in entry.outputs)
        nine = self.config.published is Published.DA3
        metres = self.config.published in (Published.PI3X, Published.DA3_METRIC)
        return Manifest(
            page4d="0",
            model=self.config.to_mapping(),
            weights="seeded (seed 0)",
            layout=self.layout,
            precision=Precision.FLOAT32,
            encoder_images=self.n,
            stages=tuple(stages),
            keep=tuple(
                KeptLayer(layer, (f"time_sa.{layer}", f"view_sa.{layer}"), 1) for layer in self.config.keep_layers
            ),
            points_frame=PointsFrame.CAMERA if points else None,
            pose_direction=self.config.traits.pose_direction if nine else None,
            unit=Unit.METRES if metres else None,
        )

    def _stages(self):
        config, layout, model = self.config, self.layout, self.model
        if config.known_cameras:
            yield self._stage(
                "camera_encoder",
                {"cameras": (layout.V, 9)},
                {"special": (layout.images, 1, config.width)},
                lambda cameras: [model.camera_encoder(cameras[None]).transpose(0, 1).repeat(layout.B, 1, 1)],
            )
        yield self._encoder()
        tokens = layout.tokens_shape(1, config.width)
        for layer, blocks in enumerate(model.layers):
            for name in ("time_sa", "view_sa"):
                block = getattr(blocks, name)
                yield self._stage(name, {"tokens": tokens}, {"tokens": tokens}, self._block(block), layer)
        for head in config.predictions:
            yield self._head(head)

    def _encoder(self):
        config, layout, model, n = self.config, self.layout, self.model, self.n
        images = {"images": (n, layout.H, layout.W, 3)}
        calls = layout.images // n
        if config.sees_alone:
            features = {f"features.{block}": (n, layout.P, config.width) for block in config.dpt_layers}
            return self._stage("encoder", images, features, model.encoder.tapped, calls=calls)

        def encode(pixels, special):
            patches, select = model.encoder.encode(pixels)
            return [torch.cat((special, patches), dim=1), *([] if select is None else [select])]

        outputs = {"tokens": (n, layout.N, config.width)}
        outputs |= {"select": (n, config.width)} if config.chooses_reference else {}
        special = {"special": (n, layout.special, config.width)}
        return self._stage("encoder", images | special, outputs, encode, calls=calls)

    def _block(self, block):
        layout = self.layout
        whole = (1, layout.B, layout.T, layout.V, layout.N, self.config.width)
        return lambda tokens: [block(tokens.reshape(whole), layout).reshape(tokens.shape)]

    def _head(self, head):
        config, layout, module = self.config, self.layout, getattr(self.model, head)
        is_whole = head in (Head.CAMERA, Head.METRIC)
        n = layout.images if is_whole else self.head_images
        part = layout if is_whole else dataclasses.replace(layout, B=1, T=1, V=n)
        lead = (part.B, part.T, part.V)
        if config.sees_alone:
            inputs = {f"features.{block}": (n, layout.P, config.width) for block in config.dpt_layers}
        else:
            shape = layout.layer_shape(2 * config.width) if is_whole else (n, layout.N, 2 * config.width)
            inputs = {f"layers.{layer}": shape for layer in config.layers_of(head)}
        pixels = (n, layout.H, layout.W)
        numbers = 9 if config.published is Published.DA3 else 12
        outputs = {
            Head.CAMERA: {"camera": layout.pose_shape(numbers)},
            Head.METRIC: {"metric": (layout.B,)},
            Head.POINTS: {"points": (*pixels, 3)},
            Head.CONFIDENCE: {"confidence": pixels},
            Head.DEPTH: {"depth": pixels, "sky" if config.sees_alone else "depth_confidence": pixels},
        }[head]

        def run(*layers):
            values = module(*(layer.reshape(*lead, *layer.shape[-2:]) for layer in layers), layout=part)
            values = values if isinstance(values, tuple) else (values,)
            return [value.reshape(shape) for value, shape in zip(values, outputs.values(), strict=True)]

        return self._stage(str(head), inputs, outputs, run, calls=1 if is_whole else layout.images // n)

    def _stage(self, kind, inputs, outputs, function, layer=None, calls=1):
        name = kind if layer is None else f"{kind}.{layer}"
        self.functions[name] = function

        def spec(tensor, shape, suffix=""):
            return TensorSpec(tensor, shape, "uint8" if tensor == "images" else "float32", suffix)

        shapes = [*inputs.values(), *outputs.values()]
        return {
            "name": name,
            "kind": kind,
            "layer": layer,
            "inputs": tuple(spec(tensor, shape) for tensor, shape in inputs.items()),
            "outputs": tuple(
                spec(tensor, shape, "_out" if tensor in inputs else "") for tensor, shape in outputs.items()
            ),
            "weight_bytes": 0,
            "flop": 0,
            "largest": max(math.prod(shape) for shape in shapes),
            "calls": calls,
            "file": f"onnx/{name}.onnx",
        }


class _Engine:
    def __init__(self, function):
        self.function = function

    def bind(self, inputs, outputs):
        """Inputs and outputs in the order of the manifest."""
        sources = [torch.from_numpy(np.asarray(array)) for array in inputs.values()]

        def call():
            for target, value in zip(outputs.values(), self.function(*sources), strict=True):
                np.copyto(target, value.detach().numpy())

        return call
