"""Graphs made ready for ONNX Runtime: what is taken off at the borders, what stays."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from page4d_engines.ort.lowering import lower


def run(model, values):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {value.name: values[value.name].reshape(value.shape) for value in session.get_inputs()}
    return session.run(None, inputs)


def test_reshapes_at_the_borders_are_shed():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,1,6] x) => (float[3,4] y)
        <int64[2] flat = {2, 6}, int64[2] last = {3, 4}, float[2,6] a, float[2,6] b> {
            a = Reshape (x, flat)
            b = Mul (a, a)
            y = Reshape (b, last)
        }""")
    x = np.random.default_rng(0).random((2, 1, 6), np.float32)
    (before,) = run(model, {"x": x})
    lowered = lower(model, rounding=False)
    assert [node.op_type for node in lowered.graph.node] == ["Mul"]
    (after,) = run(lowered, {"x": x})
    assert after.shape == (2, 6)
    np.testing.assert_array_equal(after.ravel(), before.ravel())


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (
            "a = Reshape (x, flat)\n c = Reshape (x, last)\n d = Reshape (c, flat)\n y = Mul (a, d)",
            3,
        ),  # the input has two readers
        ("y = Reshape (x, last)", 1),  # nothing computes between input and output
        ("a = Mul (x, x)\n y = Reshape (a, last)\n z = Mul (a, a)", 1),  # what is reshaped is read elsewhere
    ],
)
def test_reshapes_that_others_depend_on_stay(body, kept):
    outputs = "float[3,4] y, float[2,6] z" if "z =" in body else "float[2,6] y" if "y = Mul" in body else "float[3,4] y"
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,6] x) => ({outputs})
        <int64[2] flat = {{2, 6}}, int64[2] last = {{3, 4}}, float[2,6] a, float[3,4] c, float[2,6] d> {{
            {body}
        }}""")
    x = np.random.default_rng(0).random((2, 6), np.float32)
    before = run(model, {"x": x})
    lowered = lower(model, rounding=False)
    assert sum(node.op_type == "Reshape" for node in lowered.graph.node) == kept
    for array, reference in zip(run(lowered, {"x": x}), before, strict=True):
        np.testing.assert_array_equal(array, reference)


def test_rounding_shows_overflow_and_plain_widening_does_not():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float16[3] x) => (float[3] y) <float16[3] square, float16[3] root> {
            square = Mul (x, x)
            root = Sqrt (square)
            y = Cast <to = 1> (root)
        }""")
    x = np.array([3.0, 1 / 3, 300.0], np.float32)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (wide,) = run(lower(copy, rounding=False), {"x": x})
    np.testing.assert_allclose(wide, x, rtol=1e-6)
    (rounded,) = run(lower(model, rounding=True), {"x": x})
    assert np.isinf(rounded[2])  # 90000 is beyond float16
    np.testing.assert_array_equal(
        rounded[:2],
        np.sqrt((x[:2] * x[:2]).astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32),
    )
