"""From shapes to launches: what every plan keeps to, and what is refused. No torch, no Triton, no GPU."""

import itertools
import math
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d.ops import BiasedRows
from page4d_plugins.launch_plan import Descriptor, Ref, Shape, Strides, constants, make_plan, parts_of
from page4d_plugins.modes import CHIPS, Dtype, Keys, Mode, chip_for
from page4d_plugins.node import most_workspace
from tests.support.examples import examples

WHOLE = [mode for mode in Mode if not mode.partial]  # what is asked for; parts follow from a plan


@st.composite
def calls(draw):
    """A shape of any mode, and the tiles of a GPU architecture: small calls, and few queries on many keys."""
    mode = draw(st.sampled_from([*WHOLE, Mode.DENSE, Mode.BIASED]))
    groups = draw(st.integers(1, 9)) if mode.keys is not Keys.RANGE else 1
    rows = draw(st.one_of(st.integers(1, 100), st.integers(1, 40_000)))
    n = groups * rows
    m = n if mode.keys is Keys.VIEWS else draw(st.one_of(st.integers(1, 3000), st.integers(1, 200_000)))
    period = draw(st.sampled_from([d for d in (1, 2, 5, rows) if rows % d == 0]))
    biased = BiasedRows(period, draw(st.integers(0, period)), 64.0) if mode is Mode.ROWS else None
    Z, A = draw(st.integers(1, 4)), draw(st.integers(1, 16))
    chip = CHIPS[draw(st.sampled_from(sorted(CHIPS)))]
    shape = Shape(
        mode,
        draw(st.sampled_from(Dtype)),
        Z,
        A,
        n,
        m,
        draw(st.sampled_from([16, 64, 128])),
        groups,
        2 * groups,
        biased,
        3.0,
        4.0,
    )
    return shape, chip.of(mode), chip.part


few_queries = st.tuples(
    st.integers(1, 2000), st.integers(1, 300_000), st.integers(1, 16), st.sampled_from([Mode.DENSE, Mode.BIASED])
)


def regions(shape, plan):
    """(start, end) in the workspace of everything that the launches name there, by parameter."""
    sizes = {"BIAS": 4 * shape.Z * shape.m}
    if plan.mode.partial:
        parts = plan.launches[-1].values["parts"]
        sizes |= {
            "PART": 4 * parts * shape.Z * shape.A * shape.n * shape.D,
            "LSE": 4 * parts * shape.Z * shape.A * shape.n,
        }
    places = {}
    for launch in plan.launches:
        for name, value in launch.values.items():
            if isinstance(value, Ref) and value.tensor == "workspace":
                what = {"prepare": "BIAS", "merge": name}.get(launch.kernel, "PART" if name == "OUT" else name)
                places.setdefault(what, set()).add((value.offset, value.offset + sizes[what]))
    return places


@examples(150)
@given(calls())
@example((Shape(Mode.BIASED, Dtype.FLOAT16, 1, 1, 3, 2001, 16), CHIPS[80].tile, CHIPS[80].part))
def test_the_workspace_holds_all_results_side_by_side(call):
    """Each at one place, aligned, inside, apart from the others; writers and readers agree on it."""
    shape, *_ = call
    plan = make_plan(*call)
    by_name = regions(shape, plan)
    assert set(by_name) == {*["BIAS"] * plan.mode.has_bias, *["PART", "LSE"] * plan.mode.partial}
    assert all(len(places) == 1 for places in by_name.values())
    places = sorted(place for (place,) in by_name.values())
    assert all(start % 256 == 0 for start, _ in places)
    assert all(end <= following for (_, end), (following, _) in itertools.pairwise(places))
    assert plan.workspace >= max((end for _, end in places), default=0)
    assert plan.workspace <= sum(end - start + 255 for start, end in places)


@examples(150)
@given(calls())
def test_grids_cover_every_row_once(call):
    shape, tile, part_tile = call
    plan = make_plan(*call)
    kernels = [launch.kernel for launch in plan.launches]
    assert (
        kernels == ["prepare"] * plan.mode.has_bias + [f"attention_{plan.mode.value}"] + ["merge"] * plan.mode.partial
    )
    main = next(launch for launch in plan.launches if launch.kernel.startswith("attention"))
    cut = part_tile if plan.mode.partial else tile
    rows, heads = main.values["rows"], shape.Z * shape.A
    assert (main.grid[0] - 1) * cut.queries < rows <= main.grid[0] * cut.queries
    assert main.grid[1:] == (plan.launches[-1].values["parts"] if plan.mode.partial else shape.groups, heads)
    assert rows == (shape.n if plan.mode.partial else shape.n // shape.groups)
    assert max(main.grid[1:]) <= 65535
    if plan.mode.has_bias:
        prepare = plan.launches[0]
        assert prepare.values["count"] == shape.Z * shape.m
        assert (
            (prepare.grid[0] - 1) * constants("prepare", cut)["BLOCK"]
            < shape.Z * shape.m
            <= prepare.grid[0] * constants("prepare", cut)["BLOCK"]
        )
    if plan.mode.partial:
        assert plan.launches[-1].grid == (shape.n, heads, 1)


@examples(150)
@given(few_queries, st.sampled_from(sorted(CHIPS)))
def test_parts_cover_every_key_once(case, chip):
    """Part p reads whole tiles of keys from p * chunk on; none is empty, and the merge kernel holds them all."""
    n, m, heads, mode = case
    part = CHIPS[chip].part
    shape = Shape(mode, Dtype.FLOAT16, 1, heads, n, m)
    plan = make_plan(shape, CHIPS[chip].of(mode), part)
    blocks = -(-n // part.queries) * heads
    if not plan.mode.partial:
        assert parts_of(shape, part) == 1
        assert 2 * blocks > 264 or m < 1024 or m <= part.keys
        return
    main, merge = plan.launches[-2:]
    parts, chunk = merge.values["parts"], main.values["chunk"]
    assert parts == parts_of(shape, part) == main.grid[1]
    assert 2 <= parts <= constants("merge", part)["PARTS"]
    assert chunk % part.keys == 0
    assert chunk >= 512
    assert chunk * (parts - 1) < m <= chunk * parts
    assert 2 * blocks <= 264
    assert blocks * (parts - 1) < 264  # no more than fill a GPU
    assert plan.mode is mode.of_parts


@examples(60)
@given(
    st.sampled_from([mode for mode in WHOLE if mode.of_parts is None]),
    st.integers(1, 20),
    st.integers(1, 100_000),
    st.sampled_from(sorted(CHIPS)),
)
def test_other_modes_are_never_split(mode, n, m, chip):
    m = n if mode.keys is Keys.VIEWS else m
    rows = BiasedRows(1, 1, 1.0) if mode is Mode.ROWS else None
    plan = make_plan(
        Shape(mode, Dtype.FLOAT16, 1, 1, n, m, segments=1, rows=rows), CHIPS[chip].of(mode), CHIPS[chip].part
    )
    assert plan.mode is mode
    assert len(plan.launches) == 2


def test_few_queries_on_many_keys_fill_a_gpu():
    """The memory's read and write of 32 tokens, one frame on a long clip; plenty of queries stay in one piece."""
    H100 = CHIPS[90]

    def split(A, n, m):
        return parts_of(Shape(Mode.DENSE, Dtype.FLOAT16, 1, A, n, m), H100.part)

    assert split(16, 32, 21_984) * 16 >= 132
    assert split(16, 32, 5496) * 16 >= 132
    assert split(1, 1, 1_000_000) == 64
    assert split(16, 21_984, 512) == 1
    assert split(16, 1374, 1374) == 1
    assert split(16, 32, 1000) == 1


@examples(60)
@given(calls(), st.lists(st.integers(1, 2**40).map(lambda x: 16 * x), min_size=12, max_size=12))
def test_strides_reach_the_launches(call, numbers):
    """Given ones as they are, others of contiguous tensors; the group's stride skips a group's rows."""
    shape, *tiles = call
    q, k, v, out = (Strides(*numbers[i : i + 2], numbers[i + 2] % 2**23) for i in range(0, 12, 3))
    lengths = (shape.n, shape.m, shape.m, shape.n)
    contiguous = [Strides(shape.A * length * shape.D, length * shape.D, shape.D) for length in lengths]
    for options, expected in (({"q": q, "k": k, "v": v, "out": out}, (q, k, v, out)), ({}, contiguous)):
        plan = make_plan(shape._replace(**options), *tiles)
        values = next(launch.values for launch in plan.launches if launch.kernel.startswith("attention"))
        for name, strides in zip(("q", "k", "v"), expected[:3], strict=True):
            assert tuple(values[f"{name}_{axis}"] for axis in "zan") == strides
        if plan.mode.partial:
            parts = plan.launches[-1].values["parts"]
            size = shape.n * shape.D
            assert [values[f"out_{axis}"] for axis in "zagn"] == [shape.A * parts * size, parts * size, size, shape.D]
            assert values["q_g"] == 0
            assert tuple(plan.launches[-1].values[f"out_{axis}"] for axis in "zan") == expected[3]
        else:
            assert tuple(values[f"out_{axis}"] for axis in "zan") == expected[3]
            assert values["q_g"] == shape.n // shape.groups * expected[0].n
            assert values["out_g"] == shape.n // shape.groups * expected[3].n
        for name, tensor, strides in (("KD", "k", expected[1]), ("VD", "v", expected[2])):
            tile = tiles[1] if plan.mode.partial else tiles[0]
            described = Descriptor(tensor, (shape.Z, shape.A, shape.m, shape.D), (*strides, 1), tile.keys)
            assert values[name] == (described if tile.descriptors else None)
        assert values["scale"] == pytest.approx(1 / math.log(2) / math.sqrt(shape.D), rel=1e-12)
        assert values["penalty"] == pytest.approx(4 / math.log(2), rel=1e-12)


GOOD = Shape(Mode.DENSE, Dtype.FLOAT16, 1, 16, 100, 100)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"Z": 0}, "empty"),
        ({"n": 0}, "empty"),
        ({"m": 0}, "empty"),
        ({"D": 48}, "head dimension"),
        ({"D": 8}, "head dimension"),
        ({"D": 512}, "head dimension"),
        ({"mode": Mode.SEGMENTS, "groups": 3}, "equal groups"),
        ({"mode": Mode.SEGMENTS, "groups": 0}, "equal groups"),
        ({"mode": Mode.EPIPOLAR, "groups": 2, "m": 102}, "as many keys as queries"),
        ({"mode": Mode.ROWS, "rows": BiasedRows(3, 1, 1.0)}, "rows do not fit"),
        ({"mode": Mode.ROWS, "rows": BiasedRows(5, 6, 1.0)}, "rows do not fit"),
        ({"mode": Mode.ROWS, "rows": BiasedRows(5, -1, 1.0)}, "rows do not fit"),
        ({"mode": Mode.ROWS, "rows": BiasedRows(0, 0, 1.0)}, "rows do not fit"),
        ({"Z": 4096}, "too many"),
        ({"mode": Mode.SEGMENTS, "n": 65536, "groups": 65536}, "too many"),
        ({"q": Strides(1600, 1600, 24)}, "vectors"),
        ({"k": Strides(1600, 8, 16)}, "vectors"),
        ({"v": Strides(1, 1600, 16)}, "vectors"),
        ({"out": Strides(1600, 1600, 17)}, "vectors"),
    ],
)
def test_sizes_that_are_refused(changes, what):
    make_plan(GOOD, CHIPS[80].tile, CHIPS[80].part)
    with pytest.raises(UsageError, match=what):
        make_plan(GOOD._replace(**changes), CHIPS[80].tile, CHIPS[80].part)


@pytest.mark.parametrize(
    "changes",
    [
        {"m": 2**31},
        {"n": 2**31, "m": 10},
        {"Z": 60, "m": 2**30, "mode": Mode.BIASED},
        {"q": Strides(2**32, 2**32, 2**31)},
        {"k": Strides(2**32, 2**32, 2**27)},
        {"v": Strides(2**32, 2**32, 2**27)},
    ],
)
def test_numbers_beyond_the_kernels_integers_are_refused(changes):
    """Keys and rows are counted, and offsets within a tile made, in 32 bits: what exceeds them would wrap around."""
    with pytest.raises(UsageError):
        make_plan(GOOD._replace(A=1, **changes), CHIPS[80].tile, CHIPS[80].part)


def test_chips():
    """A GPU architecture has its own kernels or the fallback's; older ones have none."""
    assert [chip_for(capability) for capability in (80, 86, 87, 89, 90, 100, 103, 110, 120, 121)] == list(CHIPS)
    assert [chip_for(capability) for capability in (88, 91, 101, 130)] == [80] * 4
    for old in (75, 70, 52):
        with pytest.raises(UsageError, match=f"sm_{old}"):
            chip_for(old)
    with pytest.raises(UsageError, match="float16, bfloat16"):
        Dtype.named("float32")
    assert [Dtype.named(name) for name in ("float16", "bfloat16")] == list(Dtype)


@examples(100)
@given(calls())
def test_most_workspace_is_enough_on_every_chip(call):
    shape = call[0]._replace(D=64)
    plans = [make_plan(shape, chip.of(shape.mode), chip.part) for chip in CHIPS.values()]
    assert all(most_workspace(shape) >= plan.workspace for plan in plans)
    assert most_workspace(shape) in [plan.workspace for plan in plans]


def test_planning_loads_neither_torch_nor_triton():
    """Engines are read and launched where neither is installed."""
    modules = ", ".join(f"page4d_plugins.{name}" for name in ("node", "kernel_pack", "parameters", "launcher"))
    code = f"import sys, {modules}; print({{'torch', 'triton'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
