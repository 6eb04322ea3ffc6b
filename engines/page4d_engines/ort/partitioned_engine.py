"""A 16-bit stage on a GPU without TensorRT: this project's kernels, and ONNX Runtime's CUDA provider between them.

Everything is computed in the graph's own types. Weights are bound as inputs, so stages of one kind, and all blocks of
an encoder, run on the same few sessions; tensors between steps lie in the chain's scratch memory.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from page4d.errors import EngineError, Page4DError
from page4d_engines.ort.cuda_engine import UNCAPTURABLE, cuda_session
from page4d_engines.ort.library import first_line, translated, unloadable
from page4d_engines.ort.onnx_graph import Tensor, replace_nodes, tensors_of
from page4d_engines.ort.partition import Attention, Partition, Subgraph, partition
from page4d_engines.ort.rows.row_fusion import RowCall, fuse_rows
from page4d_engines.runtime.cuda_device import CudaDevice
from page4d_engines.runtime.engine import GpuEngine, Launch
from page4d_engines.stage_files.external_data import is_external, mapped
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launcher import KernelLauncher, Launcher

# ONNX Runtime has no kernels of these for it
_NOT_IN_BFLOAT16 = ("Conv", "ConvTranspose", "Gelu", "Resize")


class SharedSessions:
    """ONNX Runtime's sessions on one GPU, one for all equal pieces."""

    def __init__(self, gpu: CudaDevice) -> None:
        self._gpu = gpu
        self._sessions: dict[bytes, onnxruntime.InferenceSession] = {}

    def of(self, piece: Subgraph) -> onnxruntime.InferenceSession:
        """The session of a piece.

        Raises:
            MissingBackendError: the provider does not start.
        """
        if piece.content not in self._sessions:
            self._sessions[piece.content] = cuda_session(piece.content, onnxruntime.SessionOptions(), self._gpu)
        return self._sessions[piece.content]


class PartitionedEngine(GpuEngine):
    """One stage.

    Args:
        path: its ONNX file, in 16 bits.
        gpu: where.
        sessions: that it shares with other stages.

    Raises:
        EngineError: ONNX Runtime does not accept a piece.
        OutOfMemoryError: the weights do not fit the GPU.
        UsageError: the kernels do not take an attention, or not this GPU.
        MissingBackendError: its CUDA provider cannot start, as with a CUDA of another version.
    """

    def __init__(self, path: pathlib.Path, gpu: CudaDevice, sessions: SharedSessions) -> None:
        self._gpu, self._name = gpu, path.name
        try:
            model = onnx.load(path, load_external_data=False)
            rows = fuse_rows(model.graph)
            widen_unsupported(model.graph)
            self._partition: Partition = partition(model, rows)
            self._sessions = {
                piece: sessions.of(piece) for piece in self._partition.steps if isinstance(piece, Subgraph)
            }
        except Page4DError:
            raise
        except Exception as error:  # ONNX Runtime and protobuf raise a type of their own for every status
            raise translated(error, path.name, unloadable(error, path.name)) from error
        steps = list(enumerate(self._partition.steps))
        attentions = {
            number: Launcher(step.shape, gpu.number, shipped()) for number, step in steps if isinstance(step, Attention)
        }
        joined = {
            number: KernelLauncher([step.launch], step.dtype, gpu.number, shipped())
            for number, step in steps
            if isinstance(step, RowCall)
        }
        self._launchers: dict[int, KernelLauncher] = {**attentions, **joined}
        outside = [value.name for value in (*model.graph.input, *model.graph.output)]
        workspaces = {number: launcher.workspace for number, launcher in attentions.items()}
        self._places, self._workspaces, self.scratch = self._partition.memory_layout(outside, workspaces)
        self._weights = {name: gpu.placed(raw(tensor, path.parent)) for name, tensor in self._partition.weights.items()}

    @property
    def uncapturable(self) -> str:
        """As `GpuEngine.uncapturable`."""
        return UNCAPTURABLE

    def bind(self, inputs: Mapping[str, int], outputs: Mapping[str, int], scratch: int) -> Launch:
        """As `GpuEngine.bind`."""
        addresses = (
            {name: scratch + place for name, place in self._places.items()} | self._weights | {**inputs, **outputs}
        )
        calls: list[Launch] = []
        for number, step in enumerate(self._partition.steps):
            if isinstance(step, Subgraph):
                calls.append(self._bound(step, addresses))
            else:
                pointers = {name: addresses[tensor] for name, tensor in (step.inputs | step.outputs).items()}
                pointers["workspace"] = scratch + self._workspaces.get(number, 0)
                calls.append(functools.partial(self._launchers[number], pointers))

        def launch(stream: int) -> None:
            try:
                for call in calls:
                    call(stream)
            except Page4DError:
                raise
            except Exception as error:
                raise translated(error, self._name, EngineError(f"{self._name} failed: {first_line(error)}")) from error

        return launch

    def _bound(self, piece: Subgraph, addresses: Mapping[str, int]) -> Launch:
        session = self._sessions[piece]
        binding = session.io_binding()
        for names, borders, bind in (
            (piece.inputs, session.get_inputs(), binding.bind_input),
            (piece.outputs, session.get_outputs(), binding.bind_output),
        ):
            for name, border in zip(names, borders, strict=True):  # the shape may be a view of the stage's
                dtype = self._partition.tensors[name].dtype
                bind(border.name, "cuda", self._gpu.number, dtype, border.shape, addresses[name])
        options = onnxruntime.RunOptions()
        # all is in the order of one stream
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return lambda stream: session.run_with_iobinding(binding, options)


def raw(tensor: TensorProto, folder: pathlib.Path) -> NDArray[np.uint8]:
    """The bytes of a constant, uint8 `[n]`, which lies in the ONNX file or in another one of the folder."""
    if is_external(tensor):
        return mapped(tensor, folder, np.uint8, (Tensor(tuple(tensor.dims), tensor.data_type).bytes,))
    return np.ascontiguousarray(numpy_helper.to_array(tensor)).reshape(-1).view(np.uint8)


def widen_unsupported(graph: GraphProto) -> None:
    """Compute in float32 what ONNX Runtime does not compute in bfloat16 on a GPU, in place: a cast before and after."""
    tensors = tensors_of(graph)
    nodes: list[NodeProto] = []

    def widened(name: str, other: str) -> str:
        """The name of a tensor's float32 form, made known to the graph."""
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, tensors[other].shape))
        return name

    for node in graph.node:
        out = node.output[0]
        if node.op_type not in _NOT_IN_BFLOAT16 or tensors[out].dtype != TensorProto.BFLOAT16:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if name in tensors and tensors[name].dtype == TensorProto.BFLOAT16:
                node.input[place] = widened(f"{out}/wide{place}", name)
                nodes.append(helper.make_node("Cast", [name], [node.input[place]], to=TensorProto.FLOAT))
        node.output[0] = widened(f"{out}/wide", out)
        nodes += [node, helper.make_node("Cast", [node.output[0]], [out], to=TensorProto.BFLOAT16)]
    replace_nodes(graph, nodes)
