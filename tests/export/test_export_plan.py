"""Flags of an export out of any range: refused at once with a message, or a plan that a manifest can hold."""

import dataclasses
import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.errors import UsageError
from page4d.precision import Precision
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_export.plan.export_plan import ExportPlan
from tests.support.commands import inside
from tests.support.examples import examples

TINY = ("--dry-run", "--preset", "tiny", "--height", 28, "--width", 28)


def refused(*flags):
    began = time.perf_counter()
    done = inside(*TINY, *flags)
    assert time.perf_counter() - began < 2, "a plan is not made of what is refused"
    assert done.returncode == 2, (done.stdout, done.stderr)
    return done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--T", 2**63, "--V", 2), "T is too large"),
        (("--T", -(10**30), "--V", 2), "T is too small"),
        (("--T", 65535, "--V", 65535), "up to 16384 images"),
        (("--T", 1, "--V", 1, "--B", 10**9), "B is too large"),
        (("--T", 2, "--V", 2, "--height", 10**12), "height is too large"),
        (("--T", 2, "--V", 2, "--height", 65534, "--width", 65534), "FLOP a window"),
        (("--T", 100, "--V", 100, "--height", 65534, "--width", 65534), "tensors of up to 2^40 numbers"),
        (("--T", 128, "--V", 128, "--encoder-images", 10**18), "does not divide the clip's 16384 images"),
        (("--T", 2, "--V", 2, "--encoder-images", -1), "allowed: 1, 2, 4"),
        (("--T", 2, "--V", 2, "--seed", -1), "Invalid value for '--seed'"),
        (("--T", 2, "--V", 2, "--seed", 2**63), "--seed is out of range"),
        (("--T", 2, "--V", 2, "--tolerance", "nan"), "--tolerance is out of range"),
        (("--T", 2, "--V", 2, "--tolerance", "-1"), "--tolerance is out of range"),
        (("--T", 2, "--V", 2, "--set", "depth=1e9"), "depth is out of range"),
        (("--T", 2, "--V", 2, "--set", "depth=1000000000"), "0 to 256"),
        (("--T", 2, "--V", 2, "--set", f"depth={'9' * 4000}"), "depth is out of range"),
        (("--T", 2, "--V", 2, "--set", f"depth={'[' * 50_000}"), "depth is out of range"),
        (("--T", 2, "--V", 2, "--set", "epipolar_band=NaN"), "epipolar_band is out of range"),
        (("--T", 2, "--V", 2, "--set", "epipolar_band=1e400"), "epipolar_band is out of range"),
        (("--T", 2, "--V", 2, "--set", "order=[[1],2]"), "order is out of range"),
        (
            ("--T", 2, "--V", 2, "--set", "global_strategy=dilated", "--set", "dilations=1000000000"),
            "dilations is out of range",
        ),
    ],
)
def test_flags_out_of_range(flags, words):
    assert words in refused(*flags)


SIZES = st.one_of(
    st.integers(1, 40), st.sampled_from([0, -1, 127, 128, 16384, 16385, 65535, 65536, 2**31, 2**63, 10**30])
)
WHOLE = ["0", "1", "-1", "2", "64", "128", "256", "257", "65535", "9" * 500]
OTHER = ["1e9", "1e400", "NaN", "null", "true", "{}", "[]", "[0,1]", "[[0]]", "0,1", '"a"', ""]
VALUES = st.sampled_from([*WHOLE, *OTHER])
NAMES = st.sampled_from([*(field.name for field in dataclasses.fields(ModelConfig)), "nothing"])


@examples(60)
@given(
    T=SIZES,
    V=SIZES,
    images=st.none() | SIZES,
    sets=st.lists(st.tuples(NAMES, VALUES), max_size=3),
    precision=st.sampled_from([(), ("--int8",), ("--fp16",)]),
)
def test_any_flags_end_in_a_plan_or_a_message(T, V, images, sets, precision):
    began = time.perf_counter()
    options = [flag for name, value in sets for flag in ("--set", f"{name}={value}")]
    chosen = () if images is None else ("--encoder-images", images)
    done = inside(*TINY, "--T", T, "--V", V, *chosen, *options, *precision, "--json")
    assert done.returncode in (0, 2), done.stderr
    assert time.perf_counter() - began < 5
    if done.returncode == 0:
        assert json.loads(done.stdout)["total"]["flop"] < 2**63


def test_the_largest_plan_is_made_at_once():
    began = time.perf_counter()
    config = ModelConfig.preset("tiny", depth=256, encoder_depth=256, keep_layers=tuple(range(64)))
    plan = ExportPlan.make(config, Layout(128, 128, 14, 14), Precision.INT8)
    buffers = BufferPlan.make(plan.manifest(""))
    assert len(buffers.calls) > 128 * 128 and time.perf_counter() - began < 5
    for entry in plan.stages():
        assert all(entry.calls * math.prod(spec.shape) <= 2**40 for spec in (*entry.inputs, *entry.outputs))
    with pytest.raises(UsageError, match="16384 images"):
        ExportPlan.make(config, Layout(128, 129, 14, 14), Precision.INT8)
