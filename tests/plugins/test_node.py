"""From nodes to calls: the mode, the shape, and what is refused."""

import pytest

from page4d.errors import UsageError
from page4d.ops import BIASED_ATTENTION, SEGMENT_ATTENTION, BiasedRows
from page4d_plugins.launch_plan import Shape, make_plan
from page4d_plugins.modes import CHIPS, Dtype, Keys, Mode
from page4d_plugins.node import Node

LINES = {"epipolar_band": 3.0, "epipolar_penalty": 4.0}
ROWS = {"row_period": 5, "row_leading": 2, "row_gain": 64.0}
MODES = {
    (BIASED_ATTENTION, "", 3): Mode.DENSE,
    (BIASED_ATTENTION, "", 4): Mode.BIASED,
    (BIASED_ATTENTION, "rows", 4): Mode.ROWS,
    (BIASED_ATTENTION, "lines", 6): Mode.EPIPOLAR,
    (SEGMENT_ATTENTION, "", 6): Mode.SEGMENTS,
    (SEGMENT_ATTENTION, "", 7): Mode.SEGMENTS_BIASED,
}
ATTRIBUTES = {"": {}, "rows": ROWS, "lines": LINES}


@pytest.mark.parametrize(
    ("op", "option"),
    [(BIASED_ATTENTION, ""), (BIASED_ATTENTION, "rows"), (BIASED_ATTENTION, "lines"), (SEGMENT_ATTENTION, "")],
)
def test_inputs_and_attributes_say_the_mode(op, option):
    node = Node.of(op, {"plugin_version": 1, **ATTRIBUTES[option]})
    assert node.fields == ATTRIBUTES[option]
    for inputs in range(9):
        if (op, option, inputs) in MODES:
            assert node.mode(inputs) is MODES[op, option, inputs]
        else:
            with pytest.raises(UsageError, match="number of inputs"):
                node.mode(inputs)


@pytest.mark.parametrize("whole", [LINES, ROWS])
def test_half_of_an_option_is_refused(whole):
    for left_out in whole:
        with pytest.raises(UsageError, match="half of an option"):
            Node.of(BIASED_ATTENTION, {name: value for name, value in whole.items() if name != left_out})


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_types_that_a_node_takes(half):
    """q, k, v, biases and output in one 16-bit type, lists in int32, lines in float32; no place takes another."""
    other = "bfloat16" if half == "float16" else "float16"
    for op, types in (
        (BIASED_ATTENTION, [half] * 4),
        (BIASED_ATTENTION, [half] * 5),
        (BIASED_ATTENTION, [half] * 4 + ["float32"] * 2 + [half]),
        (SEGMENT_ATTENTION, [half] * 4 + ["int32"] * 2 + [half]),
        (SEGMENT_ATTENTION, [half] * 4 + ["int32"] * 2 + [half] * 2),
    ):
        node = Node.of(op, {})
        for position, right in enumerate(types):
            for name in ("float32", "float16", "bfloat16", "int32", "int64", "int8", "bool"):
                expected = name == right or (position == 0 and name == other)
                assert node.accepts(position, [*types[:position], name, *types[position + 1 :]]) is expected


SHAPES = {
    Mode.DENSE: ([2, 4, 30, 64], [2, 4, 50, 64], [2, 4, 50, 64]),
    Mode.BIASED: ([2, 4, 30, 64], [2, 4, 50, 64], [2, 4, 50, 64], [2, 50]),
    Mode.ROWS: ([2, 4, 30, 64], [2, 4, 50, 64], [2, 4, 50, 64], [2, 50]),
    Mode.EPIPOLAR: ([2, 4, 30, 64], [2, 4, 30, 64], [2, 4, 30, 64], [2, 30], [3, 3, 3, 3], [10, 3]),
    Mode.SEGMENTS: ([2, 4, 30, 64], [2, 4, 50, 64], [2, 4, 50, 64], [2, 50], [4], [7, 2]),
    Mode.SEGMENTS_BIASED: ([2, 4, 30, 64], [2, 4, 50, 64], [2, 4, 50, 64], [2, 50], [4], [7, 2], [4, 7]),
}


def node_of(mode):
    op, option, _ = next(key for key, value in MODES.items() if value is mode)
    return Node.of(op, ATTRIBUTES[option])


@pytest.mark.parametrize("mode", SHAPES)
def test_shapes_become_a_call(mode):
    shape = node_of(mode).shape(SHAPES[mode], Dtype.BFLOAT16)
    expected = Shape(mode, Dtype.BFLOAT16, 2, 4, 30, 30 if mode is Mode.EPIPOLAR else 50)
    if mode is Mode.ROWS:
        expected = expected._replace(rows=BiasedRows(5, 2, 64.0))
    if mode is Mode.EPIPOLAR:
        expected = expected._replace(groups=3, band=3.0, penalty=4.0)
    if mode.keys is Keys.SEGMENTS:
        expected = expected._replace(groups=3, segments=7)
    assert shape == expected
    plan = make_plan(shape, CHIPS[90].of(mode), CHIPS[90].part)
    assert plan.mode is mode


@pytest.mark.parametrize("mode", SHAPES)
def test_a_shape_that_does_not_fit_is_refused_by_name(mode):
    """Any axis of any input, changed or gone.

    An axis that states a size itself is checked where another input has it, or by the plan.
    """
    node, shapes = node_of(mode), SHAPES[mode]
    said_by = {("q", 2), ("k", 2), ("fundamental", 0), ("seg_ptr", 0), ("seg", 0)}
    for i, name in enumerate(node.inputs[: len(shapes)]):
        for axis in range(len(shapes[i])):
            for changed in (
                [*shapes[i][:axis], shapes[i][axis] + 1, *shapes[i][axis + 1 :]],
                shapes[i][:axis] + shapes[i][axis + 1 :],
            ):
                if len(changed) == len(shapes[i]) and ((name, axis) in said_by or name == "q"):
                    continue
                with pytest.raises(UsageError, match=rf"^{name} of |q and k of an attention have four axes"):
                    node.shape([*shapes[:i], changed, *shapes[i + 1 :]], Dtype.FLOAT16)


@pytest.mark.parametrize(
    ("mode", "position", "changed", "what"),
    [
        (Mode.SEGMENTS, 0, [2, 4, 31, 64], "equal groups"),
        (Mode.SEGMENTS, 4, [1], "equal groups"),
        (Mode.SEGMENTS, 4, [0], "equal groups"),
        (Mode.SEGMENTS_BIASED, 5, [8, 2], "segment_bias"),
        (Mode.EPIPOLAR, 4, [4, 4, 3, 3], "centres"),
        (Mode.EPIPOLAR, 4, [0, 0, 3, 3], "fundamental"),
        (Mode.EPIPOLAR, 1, [2, 4, 31, 64], "v of"),
        (Mode.ROWS, 0, [2, 4, 31, 64], "rows do not fit"),
        (Mode.BIASED, 0, [2, 5, 30, 64], "k of"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(mode, position, changed, what):
    shapes = [*SHAPES[mode][:position], changed, *SHAPES[mode][position + 1 :]]
    with pytest.raises(UsageError, match=what):
        make_plan(node_of(mode).shape(shapes, Dtype.FLOAT16), CHIPS[80].of(mode), CHIPS[80].part)
