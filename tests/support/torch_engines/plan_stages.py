"""Engines whose stages are those of an export plan in PyTorch: what the runtime does, without a graph."""

import msgspec
import numpy as np
import torch

from page4d.manifest_checks.manifest_file import read_manifest, write_manifest
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.runtime.host_chain import HostChain
from page4d_export.exporter import _write_constants
from page4d_export.stage import stages_of


def written(model, plan, folder):
    """The engine folder of a float32 plan, which is made; the stages' files are empty."""
    (folder / "onnx").mkdir(parents=True)
    _write_constants(model, plan, folder)
    manifest = plan.manifest("seeded")
    entries = [msgspec.structs.replace(entry, file=f"onnx/{entry.name}.onnx") for entry in manifest.stages]
    for entry in entries:
        (folder / entry.file).write_bytes(b"")
    files = {path.relative_to(folder).as_posix(): "0" * 64 for path in (folder / "onnx").iterdir()}
    write_manifest(folder, msgspec.structs.replace(manifest, stages=tuple(entries), files=files))
    return EngineFolder(folder, read_manifest(folder))


def pipeline_of(model, plan, folder, sliding=False):
    """The stages of a float32 plan over numpy memory, in a folder that is made."""
    opened, stages = written(model, plan, folder), stages_of(model, plan)
    return Pipeline(
        opened,
        Backend.ONNXRUNTIME,
        lambda constants: HostChain(opened, constants, lambda entry: StageModule(stages[entry.name]), "torch", sliding),
    )


class StageModule:
    """A stage as an engine over arrays."""

    def __init__(self, stage):
        self.module = stage.module

    def bind(self, inputs, outputs):
        """Inputs and outputs in the order of the manifest."""
        sources = [torch.from_numpy(np.asarray(array)) for array in inputs.values()]

        def call():
            with torch.no_grad():
                values = self.module(*sources)
            for target, value in zip(outputs.values(), values if isinstance(values, tuple) else (values,), strict=True):
                np.copyto(target, value.numpy())

        return call
