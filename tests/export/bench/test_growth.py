"""Time and memory by timesteps and views: the model of both, and the points that it is fitted to."""

import itertools
import math
import re
import subprocess
import types

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from page4d import Layout, ModelConfig
from page4d.config import PRESETS
from page4d.errors import OutOfMemoryError, Page4DError, UsageError
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_export.bench.growth import growth, growth_model, growth_point, growth_table
from page4d_export.bench.growth.growth_model import Rates
from page4d_export.bench.growth.growth_plot import plot_growth
from page4d_export.bench.growth.growth_record import Growth, Point
from page4d_export.plan.export_plan import ExportPlan
from tests.support.examples import examples
from tests.support.models import EVERY, config_of, layout_of

AT_MOST = 1.5  # the model's bytes per measured ones; and never below


def plan_of(T, V, H=28, W=42, precision=Precision.FLOAT32, **options):
    return ExportPlan.make(ModelConfig.preset("tiny", **options), Layout(T, V, H, W), precision)


# ---- memory


def test_memory_is_weights_buffers_and_scratch():
    plan = plan_of(3, 2)
    memory, manifest = growth_model.memory_of(plan), plan.manifest("")
    assert memory.buffers == BufferPlan.make(manifest).total
    assert memory.weights == sum(entry.weight_bytes for entry in plan.stages())
    assert memory.scratch == growth_model.SCRATCH * 4 * max(entry.largest for entry in plan.stages())
    assert memory.total == growth_model.PROCESS + memory.weights + memory.buffers + memory.scratch


# ---- work


WITHOUT_ATTENTION = {"points": ("vggt", "page4d"), "camera": ("da3",)}
"""Heads of published models that have none; nor has any mask head or depth head."""


@pytest.mark.parametrize("variant", EVERY)
def test_work_is_the_plan_s_flop(variant):
    plan = ExportPlan.make(config_of(variant), layout_of(variant, 28, 42), Precision.FLOAT32)
    works = growth_model.work_of(plan)
    for kind, work in works.items():
        entries = [entry for entry in plan.stages() if entry.kind == kind]
        assert work.flop.total == sum(entry.flop * entry.calls for entry in entries)
        assert work.calls == sum(entry.calls for entry in entries)
        lacks_attention = kind in ("mask_head", "depth") or plan.config.published in WITHOUT_ATTENTION.get(kind, ())
        assert (work.flop.attention > 0) != lacks_attention, kind


@examples(40)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_growth_in_times_and_views(T, V, h, w):
    def work(T, V):
        return growth_model.work_of(plan_of(T, V, 14 * h, 14 * w))

    once, longer, wider = work(T, V), work(2 * T, V), work(T, 2 * V)
    assert longer["time_sa"].flop.attention == 4 * once["time_sa"].flop.attention  # quadratic in T
    assert longer["view_sa"].flop.attention == 2 * once["view_sa"].flop.attention  # linear
    assert wider["time_sa"].flop.attention == 2 * once["time_sa"].flop.attention
    assert wider["view_sa"].flop.attention == 4 * once["view_sa"].flop.attention
    for kind in ("encoder", "view_sa", "time_sa", "mask_head"):
        assert longer[kind].flop.linears == wider[kind].flop.linears == 2 * once[kind].flop.linears
    N, C, S, depth = 5 + h * w, 128, 2, 4
    assert once["time_sa"].flop.attention == depth * S * V * 4 * (T * N) ** 2 * C


# ---- time


def naive(a, b):
    """Non-negative least squares, a column at a time until nothing moves."""
    x = np.zeros(a.shape[1])
    for _ in range(20_000):
        before = x.copy()
        for j in range(len(x)):
            square = a[:, j] @ a[:, j]
            x[j] = max(0.0, x[j] + a[:, j] @ (b - a @ x) / square) if square else 0.0
        if np.abs(x - before).max() <= 1e-13 * max(1.0, np.abs(x).max()):
            break
    return x


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(1, 3))
def test_least_squares_is_the_naive_one(seed, rows, columns):
    rng = np.random.default_rng(seed)
    a, b = rng.random((rows, columns)), rng.normal(0.3, 1, rows)
    solution, slow = growth_model.least_squares(a, b), naive(a, b)
    assert (solution >= 0).all()
    assert np.sum((a @ solution - b) ** 2) <= np.sum((a @ slow - b) ** 2) * (1 + 1e-9) + 1e-12
    np.testing.assert_allclose(a @ solution, a @ slow, atol=1e-3)


@pytest.mark.parametrize("rates", [Rates(1 / 240, 1 / 90, 2e-4), Rates(1 / 500, 1 / 3000, 0.0), Rates(0.02, 0.0, 0.1)])
def test_the_fit_recovers_rates(rates):
    works = [growth_model.work_of(plan_of(T, V)) for T, V in ((1, 1), (2, 1), (1, 4), (6, 2))]
    seconds = [{kind: rates.seconds({kind: work}) for kind, work in kinds.items()} for kinds in works]
    fitted = growth_model.fit_rates(list(zip(works, seconds, strict=True)))
    np.testing.assert_allclose(msgspec.structs.astuple(fitted), msgspec.structs.astuple(rates), rtol=1e-6, atol=1e-12)
    bigger = growth_model.work_of(plan_of(24, 6))
    assert fitted.seconds(bigger) == pytest.approx(rates.seconds(bigger))


def test_the_largest_point_is_held_out():
    rates, layouts = Rates(1 / 200, 1 / 100, 1e-3), ((1, 1), (3, 1), (1, 5), (7, 2))
    plans = {at: plan_of(*at) for at in layouts}
    works = {at: growth_model.work_of(plan) for at, plan in plans.items()}
    shares = {(1, 1): 1.0, (3, 1): 0.9, (1, 5): 1.3, (7, 2): 1.2}  # modelled over measured memory
    points = []
    for at in layouts:
        factor = 2.0 if at == (7, 2) else 1.0  # the machine is half as fast there: smaller points cannot know
        kinds = {kind: factor * rates.seconds({kind: work}) for kind, work in works[at].items()}
        points.append(
            Point(*at, sum(kinds.values()), kinds, round(growth_model.memory_of(plans[at]).total / shares[at]))
        )
    fit = growth._fit(points, plans)
    assert fit.held_out == "T=7 V=2"
    assert fit.held_out_deviation == pytest.approx(-0.5)
    assert fit.memory_deviation == pytest.approx((-0.1, 0.3), abs=1e-6)
    assert 0 < fit.deviation < 1
    assert growth._fit(points[:1], plans).held_out_deviation is None


# ---- which points


def test_the_ladder_climbs_in_turn():
    plans = growth.plans_of(ModelConfig.preset("vits"), 224, 224)
    assert len(plans) == 24 * 6
    chosen = growth.ladder(plans)
    flop = [plan.flop for plan in chosen]
    assert chosen[0] is plans[0] and 6 <= len(chosen) <= 12
    assert all(1.6 * low <= high <= 4 * low for low, high in itertools.pairwise(flop))
    assert flop[-1] > 0.4 * plans[-1].flop
    shapes = [plan.layout for plan in chosen]
    assert any(layout.T >= 12 and layout.V == 1 for layout in shapes)
    assert any(layout.V == 6 and layout.T <= 4 for layout in shapes)


@pytest.mark.parametrize("preset, count", [("pi3", 24), ("vggt", 24)])
def test_published_models_have_their_own_layouts(preset, count):
    plans = growth.plans_of(ModelConfig.preset(preset), 224, 224)
    assert len(plans) == count and len(growth.ladder(plans)) >= 3


@pytest.fixture
def pretended(monkeypatch):
    """Points without exports or runs, each of a GFLOP a second; a list of those that ran."""
    from page4d_export import exporter, sample_clip

    ran = []

    def apart(folder, frames, plan, threads):
        layout, rates = plan.layout, Rates(1.0, 1.0, 0.0)
        kinds = {kind: rates.seconds({kind: work}) for kind, work in growth_model.work_of(plan).items()}
        ran.append((layout.T, layout.V))
        clock[0] += sum(kinds.values())
        return Point(layout.T, layout.V, sum(kinds.values()), kinds, growth_model.memory_of(plan).total)

    clock = [0.0]
    monkeypatch.setattr(growth.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(growth, "measured_apart", apart)
    monkeypatch.setattr(exporter, "write_unverified", lambda model, plan, folder: plan.manifest(""))
    monkeypatch.setattr(
        sample_clip.SampleClip, "rendered", lambda layout: types.SimpleNamespace(values={"images": np.zeros(1)})
    )
    return ran


def test_time_ends_the_climb(pretended):
    benchmark = growth.bench_growth("tiny", 56, 56, 1, 60.0, None, SILENT)
    assert len(benchmark.points) == len(pretended) > 2
    assert sum(point.seconds for point in benchmark.points) <= 60 and "exceed 60 s" in benchmark.stopped
    assert benchmark.fit.deviation < 1e-6 and abs(benchmark.fit.held_out_deviation) < 1e-6


def test_the_authors_figures_stand_beside_the_models(pretended, tmp_path, capsys):
    benchmark = growth.bench_growth("tiny", 56, 56, 1, 1e9, None, SILENT)
    alone = [cell for cell in benchmark.grid if cell.V == 1]
    vggt = msgspec.structs.replace(benchmark, preset="vggt", grid=alone, points=benchmark.points[:1])
    growth_table.print_growth(vggt)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "0.31" in line]
    (row,) = ([cell for cell in row if cell != "│"] for row in rows)
    cells = {cell.T: cell for cell in alone}
    assert (row[0], row[4], row[6]) == ("20", "0.31", "5.58")
    assert float(row[2]) == pytest.approx(cells[20].seconds / cells[1].seconds, abs=0.05)
    assert float(row[5]) == pytest.approx(0.31 / 0.04, abs=0.06)
    plot_growth(vggt, tmp_path / "vggt.png")
    plot_growth(msgspec.structs.replace(vggt, preset="tiny"), tmp_path / "tiny.png")
    with Image.open(tmp_path / "vggt.png") as ours, Image.open(tmp_path / "tiny.png") as other:
        assert ours.size == other.size and ImageChops.difference(ours.convert("RGB"), other.convert("RGB")).getbbox()


def test_memory_ends_the_climb(pretended, monkeypatch):
    monkeypatch.setattr(growth, "available_memory", lambda: 45 << 20)
    benchmark = growth.bench_growth("tiny", 56, 56, 1, 1e9, None, SILENT)
    assert benchmark.points and all(point.bytes <= 45 << 20 for point in benchmark.points)
    assert re.search(r"would take .* GiB, 0\.0 GiB are free", benchmark.stopped)
    monkeypatch.setattr(growth, "available_memory", lambda: 1 << 20)
    with pytest.raises(OutOfMemoryError, match="smallest point"):
        growth.bench_growth("tiny", 56, 56, 1, 1e9, None, SILENT)


@pytest.mark.parametrize(
    "code, error, words",
    [(6, OutOfMemoryError, "do not fit"), (-9, OutOfMemoryError, "do not fit"), (1, Page4DError, "the last line")],
)
def test_a_process_that_fails(monkeypatch, tmp_path, code, error, words):
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *_, **__: types.SimpleNamespace(returncode=code, stderr="one\nthe last line\n", stdout=""),
    )
    with pytest.raises(error, match=words):
        growth_point.measured_apart(tmp_path, tmp_path, plan_of(1, 1), 1)


@pytest.mark.parametrize(
    "threads, seconds, plot", [(0, 1.0, None), (1, 0.0, None), (1, 1.0, "growth.svg"), (1, 1.0, "no/growth.png")]
)
def test_what_is_not_allowed_is_said_first(tmp_path, threads, seconds, plot):
    with pytest.raises(UsageError, match=r"--threads|--plot"):
        growth.bench_growth("tiny", 56, 56, threads, seconds, plot and tmp_path / plot, SILENT)


# ---- the whole


@pytest.mark.slow
def test_a_real_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", {**PRESETS["tiny"], "depth": 1, "encoder_depth": 1})
    notes = []
    benchmark = growth.bench_growth(
        "tiny", 672, 672, 2, 2.0, tmp_path / "growth.png", Progress(lambda what, share: notes.append((what, share)))
    )
    assert notes[0][0] == "exporting T=1 V=1" and all(0 <= share <= 1 for _, share in notes)
    point, cell = benchmark.points[0], benchmark.grid[0]
    assert set(point.kinds) == {"encoder", "mask_head", "view_sa", "time_sa", "global_sa"}
    assert 0.5 * point.seconds < sum(point.kinds.values()) < 1.5 * point.seconds  # medians of their own
    assert cell.memory.scratch > cell.memory.total / 2  # else what follows were a test of the constant
    assert point.bytes <= cell.memory.total <= AT_MOST * point.bytes, (point.bytes, cell.memory)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert msgspec.json.decode(msgspec.json.encode(benchmark), type=Growth) == benchmark
    assert [(cell.T, cell.V) for cell in benchmark.grid] == list(itertools.product(range(1, 25), range(1, 7)))
    assert all(cell.seconds > 0 and math.isfinite(cell.seconds) for cell in benchmark.grid)
    growth_table.print_growth(benchmark)
    printed = capsys.readouterr().out
    assert "tiny 672x672, float32, 2 threads" in printed and "T=1 V=1" in printed and "*" in printed
