"""The C++ library: its own tests under sanitizers, its plans and parameters against Python's, what it exports."""

import ctypes
import json
import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d.ops import BIASED_ATTENTION, SEGMENT_ATTENTION
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launch_plan import Descriptor, Ref
from page4d_plugins.launcher import plan_for
from page4d_plugins.modes import CHIPS, Dtype, Mode
from page4d_plugins.node import Node, most_workspace
from page4d_plugins.parameters import ParameterBlock
from page4d_plugins.row_launch import RowKernel
from tests.support.cpp.cmake_builds import SANITIZED, build, run
from tests.support.examples import examples
from tests.support.exports import making

SOURCE = pathlib.Path(__file__).parents[2] / "plugins" / "csrc"
TENSORS = ("q", "k", "v", "key_bias", "fundamental", "centres", "seg_ptr", "seg", "segment_bias", "out", "workspace")
ADDRESSES = {name: (i + 1) << 32 for i, name in enumerate(TENSORS)}  # as tools/page4d_plan.cpp has them
CAPABILITIES = [*CHIPS, 70, 75, 79, 88, 101, 130]  # own code, too old, PTX


@pytest.fixture(scope="session")
def built(shared):
    """Everything that needs no TensorRT, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    with making(shared / "csrc") as first:
        if first:
            build(SOURCE, shared / "csrc" / "build", *SANITIZED, "-DPAGE4D_PLUGINS=OFF")
    return shared / "csrc" / "build"


@pytest.fixture(scope="session")
def ask(built):
    """A function from a call, as a line, to the plan that C++ makes of it; one process for all."""
    with subprocess.Popen([built / "page4d_plan"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def answer(line):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield answer
        process.stdin.close()
        assert process.wait(30) == 0


def test_own_tests_under_sanitizers(built):
    report = run("ctest", "--output-on-failure", cwd=built)
    assert "100% tests passed" in report


def test_every_name_is_in_a_namespace_of_its_own(built):
    """A program may link this and the runtime statically, which has an `Error` and a `Tensor`, too."""
    lines = run("nm", "--demangle", "--defined-only", "--extern-only", built / "libpage4d_attention.a").splitlines()
    names = {line.split(maxsplit=2)[2] for line in lines if len(line.split()) > 2}
    own = {name for name in names if "page4d::" in name}
    assert len(own) > 20 and all("page4d::plugin::" in name for name in own), sorted(own)


# ---- plans, against Python's


def line_of(op, dtype, capability, attributes, shapes):
    def joined(words):
        return ",".join(map(str, words)) or "-"

    return " ".join(
        [
            op,
            dtype,
            str(capability),
            joined(f"{name}={value!r}" for name, value in attributes.items()),
            *map(joined, shapes),
        ]
    )


@st.composite
def good_calls(draw):
    """A call of any mode that fits together; whether a GPU takes it is another matter."""
    mode = draw(st.sampled_from([mode for mode in Mode if not mode.partial]))
    size = st.integers(1, 40)
    Z, A, groups = draw(st.integers(1, 4)), draw(st.integers(1, 20)), draw(st.integers(1, 6))
    n = groups * draw(st.one_of(size, st.integers(1, 3000)))
    m = n if mode is Mode.EPIPOLAR else draw(st.one_of(size, st.integers(1, 40000)))
    segments = draw(size)
    D = draw(st.sampled_from([64] * 20 + [48, 8, 128, 512]))
    number = st.floats(-(2.0**100), 2.0**100, width=32)
    shapes = {"q": [Z, A, n, D], "k": [Z, A, m, D], "v": [Z, A, m, D], "key_bias": [Z, m]}
    attributes = {}
    if mode is Mode.DENSE:
        del shapes["key_bias"]
    if mode is Mode.ROWS:
        attributes = {
            "row_period": n // groups,
            "row_leading": draw(st.integers(0, n // groups)),
            "row_gain": draw(number),
        }
    if mode is Mode.EPIPOLAR:
        attributes = {"epipolar_band": draw(number), "epipolar_penalty": draw(number)}
        shapes |= {"fundamental": [groups, groups, 3, 3], "centres": [n // groups, 3]}
    if mode in (Mode.SEGMENTS, Mode.SEGMENTS_BIASED):
        shapes |= {"seg_ptr": [groups + 1], "seg": [segments, 2]}
    if mode is Mode.SEGMENTS_BIASED:
        shapes["segment_bias"] = [A, segments]
    op = SEGMENT_ATTENTION if "seg" in shapes else BIASED_ATTENTION
    return (
        op,
        draw(st.sampled_from(["float16", "bfloat16"])),
        draw(st.sampled_from(CAPABILITIES)),
        attributes,
        list(shapes.values()),
    )


@st.composite
def spoilt_calls(draw):
    """A call with something changed at random: most fit nothing."""
    op, dtype, capability, attributes, shapes = draw(good_calls())
    attributes, shapes = dict(attributes), [list(shape) for shape in shapes]
    kind = draw(st.sampled_from(["type", "number", "size", "axis", "input", "attribute", "op"]))
    shape = draw(st.sampled_from(shapes))
    if kind == "type":
        dtype = draw(st.sampled_from(["float32", "int32", "float64"]))
    elif kind == "number" and attributes:
        attributes[draw(st.sampled_from(sorted(attributes)))] = draw(st.integers(-3, 300))
    elif kind == "size":
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.one_of(st.integers(0, 100), st.just(70000)))
    elif kind == "axis":
        shape.pop() if draw(st.booleans()) else shape.append(1)
    elif kind == "input":
        shapes.pop() if draw(st.booleans()) else shapes.append([1, 1])
    elif kind == "attribute":
        name = draw(st.sampled_from(["epipolar_band", "epipolar_penalty", "row_period", "row_leading", "row_gain"]))
        if attributes.pop(name, None) is None:
            attributes[name] = 1
    else:
        op = BIASED_ATTENTION if op == SEGMENT_ATTENTION else SEGMENT_ATTENTION
    return op, dtype, capability, attributes, shapes


def in_python(op, dtype, capability, attributes, shapes):
    """The plan and its shape, or the first line of an error."""
    try:
        shape = Node.of(op, attributes).shape(shapes, Dtype.named(dtype))
        return plan_for(shape, capability, shipped()), shape
    except UsageError as error:
        return str(error).splitlines()[0]


def as_written(value):
    if isinstance(value, Ref):
        return f"{value.tensor}+{value.offset}"
    if isinstance(value, Descriptor):
        return {"tensor": value.tensor, "shape": list(value.shape), "strides": list(value.strides), "keys": value.keys}
    return np.float32(value) if isinstance(value, float) else value


def check_same(ask, call):
    got, expected = ask(line_of(*call)), in_python(*call)
    if not isinstance(expected, tuple):
        assert got.get("error", "a plan").splitlines()[0] == expected
        return
    assert "error" not in got, got["error"]
    plan, shape = expected
    assert (got["workspace"], got["most_workspace"]) == (plan.workspace, most_workspace(shape))
    assert [launch["kernel"] for launch in got["launches"]] == [launch.kernel for launch in plan.launches]
    for own, launch in zip(got["launches"], plan.launches, strict=True):
        entry = shipped().kernel(launch.kernel, shape.dtype, call[2]).entry
        assert (own["path"], own["threads"], own["shared"]) == (entry.path, entry.threads, entry.shared)
        assert own["grid"] == list(launch.grid)
        values = {
            name: np.float32(value) if isinstance(value, float) else value for name, value in own["values"].items()
        }
        assert values == {name: as_written(value) for name, value in launch.values.items()}
        block = ParameterBlock(entry.parameters, launch.values)
        block.point(ADDRESSES, lambda _, address: struct.pack("<Q", address) * 16)
        assert own["parameters"] == [block.bytes_of(i).hex() for i in range(len(entry.parameters))]


@examples(400)
@given(call=good_calls())
def test_plans_are_pythons(ask, call):
    check_same(ask, call)


@examples(600)
@given(call=spoilt_calls())
def test_refusals_are_pythons(ask, call):
    check_same(ask, call)


def test_every_mode_and_chip_is_met(ask):
    q, few, many = [2, 16, 2400, 64], [1, 2, 32, 64], [1, 2, 9000, 64]
    rows = {"row_period": 8, "row_leading": 5, "row_gain": 0.5}
    epipolar = {"epipolar_band": 2.5, "epipolar_penalty": 4.0}
    calls = [
        (BIASED_ATTENTION, {}, [q, q, q]),
        (BIASED_ATTENTION, {}, [q, q, q, [2, 2400]]),
        (BIASED_ATTENTION, {}, [few, many, many]),
        (BIASED_ATTENTION, {}, [few, many, many, [1, 9000]]),
        (BIASED_ATTENTION, rows, [q, q, q, [2, 2400]]),
        (BIASED_ATTENTION, epipolar, [q, q, q, [2, 2400], [4, 4, 3, 3], [600, 3]]),
        (SEGMENT_ATTENTION, {}, [q, q, q, [2, 2400], [5], [7, 2]]),
        (SEGMENT_ATTENTION, {}, [q, q, q, [2, 2400], [5], [7, 2], [16, 7]]),
    ]
    met = set()
    for op, attributes, shapes in calls:
        for dtype in ("float16", "bfloat16"):
            for capability in CHIPS:
                call = (op, dtype, capability, attributes, shapes)
                check_same(ask, call)
                met |= {launch["path"] for launch in ask(line_of(*call))["launches"]}
    rows = {kernel.value for kernel in RowKernel}  # these are not for TensorRT
    assert {
        path
        for path, kernel in shipped().kernels.items()
        if not path.startswith("ptx/") and kernel.entry.kernel not in rows
    } <= met


@pytest.mark.parametrize("capability", [87, 90])
def test_thresholds_are_pythons(ask, capability):
    """Where keys begin to be split, where parts are as many as can be, where a grid ends."""
    few = [(1, A, 32, 70000) for A in range(1, 140)]
    keys = [(1, A, 32, 512 * k + more) for A in (1, 4, 5) for k in (1, 2, 63, 64, 65) for more in (-1, 0, 1)]
    for Z, A, n, m in [*few, *keys, (5, 13107, 1, 1), (256, 256, 1, 1)]:
        check_same(
            ask, (BIASED_ATTENTION, "float16", capability, {}, [[Z, A, n, 64], [Z, A, m, 64], [Z, A, m, 64], [Z, m]])
        )
    for groups in (65535, 65536):
        q = [1, 1, groups, 64]
        check_same(ask, (SEGMENT_ATTENTION, "float16", capability, {}, [q, q, q, [1, groups], [groups + 1], [1, 2]]))


def test_a_head_dimension_without_kernels_is_refused(ask):
    shapes = [[1, 2, 64, 128]] * 3
    assert ask(line_of(BIASED_ATTENTION, "float16", 90, {}, shapes))["error"].startswith("no attention kernel")


# ---- the plugins


def test_exports_three_symbols(tmp_path):
    root = os.environ.get("TensorRT_ROOT")  # noqa: SIM112  CMake's spelling
    if root is None:
        pytest.skip("TensorRT_ROOT is not set: no TensorRT headers to build the plugins with")
    build(
        SOURCE,
        tmp_path,
        f"-DTensorRT_ROOT={root}",
        "-DBUILD_TESTING=OFF",
        targets=["page4d_plugins", "page4d_plugins_register"],
    )
    for library, symbols in {
        "page4d_plugins": ["getCreators", "page4d_plugins_kernels", "setLoggerFinder"],
        "page4d_plugins_register": [],
    }.items():
        lines = run("nm", "-D", "--defined-only", tmp_path / f"lib{library}.so").splitlines()
        assert sorted(line.split()[-1] for line in lines) == symbols
    count = ctypes.c_int32()
    library = ctypes.CDLL(str(tmp_path / "libpage4d_plugins.so"))
    assert library.getCreators(ctypes.byref(count))
    assert count.value == 2
    library.page4d_plugins_kernels.restype = ctypes.c_char_p
    assert library.page4d_plugins_kernels().decode() == shipped().header.source
