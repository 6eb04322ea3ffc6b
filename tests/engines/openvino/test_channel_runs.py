"""`Gather` in OpenVINO: runs of channels are moved channel by channel, everything else as it stands."""

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from page4d.precision import Precision
from page4d_engines.openvino import library

pytestmark = pytest.mark.skipif(not library.is_installed(), reason="OpenVINO is not installed")


def gathered(path, x, index, axis, constant):
    """What OpenVINO gives, and the shapes of what its `Gather` nodes read."""
    from page4d_engines.openvino.device import core
    from page4d_engines.openvino.engine import settings as hints_of

    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    tensors = []
    if constant:
        tensors = [numpy_helper.from_array(index, "index")]
    else:
        inputs.append(helper.make_tensor_value_info("index", TensorProto.INT64, index.shape))
    node = helper.make_node("Gather", ["x", "index"], ["y"], axis=axis)
    shape = np.take(x, index, axis).shape
    graph = helper.make_graph(
        [node], "gather", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], tensors
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    model = core().read_model(str(path))
    read = [tuple(node.input(0).get_shape()) for node in model.get_ops() if node.get_type_name() == "Gather"]
    compiled = core().compile_model(model, "CPU", hints_of("CPU", Precision.FLOAT32, 1))
    return compiled([x] if constant else [x, index])[0], read


@st.composite
def gathers(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    index = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))
    folded = draw(st.sampled_from([(-1,), (1, -1)]))
    return shape, np.array(index, np.int64).reshape(folded), axis, draw(st.booleans())


@settings(deadline=None)  # the first graph loads OpenVINO
@given(gathers())
@example(((2, 3, 4, 16), np.array([1, 0, 3, 2]), -2, True))
@example(((2, 3, 65, 16), np.array([1, 0, 3, 2]), 2, True))
def test_every_gather_is_that_of_numpy(tmp_path_factory, gather):
    shape, index, axis, constant = gather
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    y, _ = gathered(tmp_path_factory.mktemp("gather") / "gather.onnx", x, index, axis, constant)
    np.testing.assert_array_equal(y, np.take(x, index, axis))


@pytest.mark.parametrize(
    ("shape", "axis", "read"),
    [
        ((2, 5, 4, 16), -2, (2, 5, 64)),
        ((2, 5, 4, 16), 2, (2, 5, 64)),
        ((2, 5, 4, 16), 1, (2, 5, 4, 16)),
        ((4, 16), 0, (4, 16)),
        ((2, 128, 16), 1, (2, 128, 16)),
    ],
)
def test_short_runs_alone_become_channels(tmp_path, shape, axis, read):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    _, got = gathered(tmp_path / "gather.onnx", x, np.array([1, 0, 3, 2]), axis, True)
    assert got == [read]


def test_the_rotary_embedding_moves_channels(made):
    from page4d_engines.engine_folder import EngineFolder
    from page4d_engines.openvino.device import core

    folder = EngineFolder.open(made().folder)
    entry = folder.manifest.stage("time_sa.0")
    nodes = core().read_model(folder.file(entry.file)).get_ops()
    axes = [
        (int(node.input_value(2).get_node().get_data()), len(node.input(0).get_shape()))
        for node in nodes
        if node.get_type_name() == "Gather"
    ]
    assert axes.count((-1, 4)) == 2, "of q and of k"
