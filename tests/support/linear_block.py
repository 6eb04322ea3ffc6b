"""A transformer block as an ONNX graph, built by hand: what int8 and fp8 quantise."""

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.stage_graph import Graph


def block(rows=7, width=128, seed=0, outlier=1.0):
    """A transformer block with nodes named as the exporter names them, and an input `[1,rows,width]`."""
    rng = np.random.default_rng(seed)
    arrays, nodes = {}, []

    def norm(x, name):
        arrays[f"{name}.weight"] = rng.normal(1, 0.1, width).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0.5, 0.5, width).astype(np.float32)  # inputs with a mean
        nodes.append(
            helper.make_node("LayerNormalization", [x, f"{name}.weight", f"{name}.bias"], [f"{name}.out"], epsilon=1e-6)
        )
        return f"{name}.out"

    def linear(x, name, inside, outside):
        arrays[f"b.{name}/transpose"] = (rng.normal(0, 1, (inside, outside)) / inside**0.5).astype(np.float32)
        arrays[f"b.{name}.bias"] = rng.normal(0, 1, outside).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [x, f"b.{name}/transpose"], [f"{name}.product"]))
        nodes.append(helper.make_node("Add", [f"{name}.product", f"b.{name}.bias"], [f"{name}.sum"]))
        return f"{name}.sum"

    arrays |= {"heads": np.array([1, rows, 2, width // 2]), "flat": np.array([1, rows, width])}
    normed = norm("x", "norm1")
    parts = []
    for part in range(3):
        out = linear(normed, f"attn.qkv.weight/split{part}", width, width)
        nodes.append(helper.make_node("Reshape", [out, "heads"], [f"part{part}"]))
        nodes.append(helper.make_node("Transpose", [f"part{part}"], [f"turned{part}"], perm=[0, 2, 1, 3]))
        parts.append(f"turned{part}")
    nodes.append(helper.make_node("BiasedAttention", parts, ["attended"], domain="page4d"))
    nodes.append(helper.make_node("Transpose", ["attended"], ["back"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["back", "flat"], ["joined"]))
    nodes.append(helper.make_node("Add", ["x", linear("joined", "attn.proj.weight", width, width)], ["y"]))
    hidden = linear(norm("y", "norm2"), "mlp.fc1.weight", width, 4 * width)
    nodes.append(helper.make_node("Gelu", [hidden], ["gelu"]))
    nodes.append(helper.make_node("Add", ["y", linear("gelu", "mlp.fc2.weight", 4 * width, width)], ["out"]))
    shapes = {name: [1, 2, rows, width // 2] for name in (*parts, "attended")}
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, rows, width])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("page4d", 1)], ir_version=10
    )
    x = rng.normal(0, 1, (1, rows, width)).astype(np.float32)
    x[..., 3] *= outlier
    return model, x


def run(model, x, tmp_path, also=()):
    """Its output in ONNX Runtime; and of each layer the input."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    path = tmp_path / "block.onnx"

    def extend(proto):
        rows = x.shape[1]
        for name, channels in also:
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, rows, channels]))

    onnx.save(copy, path)
    engine = OrtEngine(path, ThreadPool.of(1), extend=extend)
    outputs = {
        "out": np.empty_like(x),
        **{name: np.empty((1, x.shape[1], channels), np.float32) for name, channels in also},
    }
    engine.bind({"x": x}, outputs)()
    return outputs


def observe(model, x, tmp_path):
    graph = graph_of(model)
    channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    inputs = {linear.x: channels[linear.weight] for linear in graph.linears}
    outputs = run(model, x, tmp_path, inputs.items())
    rows = {name: outputs[name][0].astype(np.float64) for name in inputs}
    seen = {name: Observed(array.mean(0), array.min(0), array.max(0)) for name, array in rows.items()}
    return outputs["out"], [seen[linear.x] for linear in graph.linears], [rows[linear.x] for linear in graph.linears]


def put(model, name, array):
    """Another array in the place of an initializer; gives the old one."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    old = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(old.dtype), name))
    return old


def without_means(seen):
    """What was observed, as if no input had a mean: nothing is shifted."""
    return [Observed(np.zeros_like(observed.mean), observed.low, observed.high) for observed in seen]


def graph_of(model):
    """The linear layers of a model."""
    return Graph(onnx_ir.from_proto(model))


def quantized(scheme, model, *arguments, **options):
    """Quantize a model in place, by `int8` or `fp8`."""
    changed = onnx_ir.from_proto(model)
    scheme.quantize(changed, *arguments, **options)
    model.CopyFrom(onnx_ir.to_proto(changed))
