"""The comparison with other runtimes, small: what computes really computes."""

import dataclasses
import json
import os
import signal
import sys
import time

import msgspec
import pytest
import torch
from PIL import Image

from page4d import Layout, ModelConfig
from page4d.precision import Precision
from page4d.system.progress import SILENT
from page4d_export.bench import contestants, peers
from page4d_export.bench.contestant import Contestant, Runner
from page4d_export.bench.peers import PeerRow, PeersBenchmark, compare_peers, print_peers
from page4d_export.bench.peers_plot import label_of, ordered, plot_peers
from page4d_export.commands.bench import app
from page4d_export.plan.export_plan import ExportPlan
from tests.support.commands import inside

NAMES = [
    "PyTorch eager, float32",
    "PyTorch eager, bfloat16",
    "torch.compile, float32",
    "torch.compile, bfloat16",
    "plain ONNX export, ONNX Runtime",
    "OpenVINO, float32",
    "OpenVINO, bfloat16",
    "OpenVINO, int8 by NNCF",
    "page4d engines, float32",
    "page4d engines, int8",
    "page4d engines, float32, on OpenVINO",
    "page4d engines, bfloat16, on OpenVINO",
    "page4d engines, int8, on OpenVINO",
    "page4d engines, static int8, on OpenVINO",
]
EAGER, COMPILED, OURS = NAMES[0], tuple(NAMES[2:4]), NAMES[-6:]


def small(T=3, V=2, H=56, W=70, **options):
    """One layer of every kind; traced already, as `made` has its stages."""
    config = ModelConfig.preset("tiny", depth=1, encoder_depth=2, **options)
    return ExportPlan.make(config, Layout(T, V, H, W), Precision.FLOAT32)


def chosen(*names):
    return [contestant for contestant in contestants.contestants() if contestant.name in names]


# of the whole model, or quantised in half a minute
EXPORTS = (*NAMES[4:7], "OpenVINO, int8 by NNCF")


@pytest.fixture(scope="module")
def quick():
    """Those that start in seconds."""
    names = [name for name in NAMES if name not in (*COMPILED, *EXPORTS)]
    return compare_peers(small(), "tiny", 2, 2, SILENT, chosen(*names))


@pytest.fixture(scope="module")
def nearly_all():
    """All but torch.compile, whose C++ takes most of a minute."""
    return compare_peers(small(), "tiny", 2, 2, SILENT, chosen(*(name for name in NAMES if name not in COMPILED)))


def test_contestants():
    assert [contestant.name for contestant in contestants.contestants()] == NAMES


@pytest.mark.parametrize("results", ["quick", pytest.param("nearly_all", marks=pytest.mark.slow)])
def test_every_contestant_has_a_row(results, request):
    benchmark = request.getfixturevalue(results)
    without = (*COMPILED, *EXPORTS) if results == "quick" else COMPILED
    assert [row.name for row in benchmark.rows] == [name for name in NAMES if name not in without]
    assert [row.name for row in benchmark.rows if row.ours] == OURS and benchmark.kept_layer == 0
    for row in benchmark.rows:
        assert row.missing is None, row
        assert row.seconds > 0 and row.spread[0] <= row.speedup <= row.spread[1]
    assert benchmark.rows[0].spread == (1.0, 1.0) and benchmark.rows[0].relative_l2 is None


@pytest.mark.parametrize("results", ["quick", pytest.param("nearly_all", marks=pytest.mark.slow)])
def test_all_compute_the_same(results, request):
    benchmark = request.getfixturevalue(results)
    for row in benchmark.rows[1:]:
        assert row.relative_l2 < {"float32": 1e-4, "int8": 2e-2, "bfloat16": 5e-2}[row.precision], row
    eager = next(row for row in benchmark.rows if row.name == "PyTorch eager, bfloat16")
    assert eager.precision == "bfloat16" and eager.relative_l2 > 1e-4
    for openvino in (row for row in benchmark.rows if row.name == "OpenVINO, bfloat16"):
        assert openvino.precision == "bfloat16" or "does not use on this CPU" in openvino.note


def test_one_that_is_far_slower_runs_once():
    """A pass of minutes would otherwise be waited for in every round."""
    passes = []

    def dawdling(course):
        eager = chosen(EAGER)[0]
        eager.prepare(course)
        return Runner(lambda: (passes.append(time.sleep(3)), eager.runner.forward())[1], "float32")

    result = compare_peers(
        small(1, 1, 28, 28), "tiny", 3, 2, SILENT, [*chosen(EAGER), Contestant("dawdling", dawdling)]
    )
    assert len(passes) == 1 and result.rows[1].note == "one pass, since it is so slow"
    assert result.rows[1].seconds > 3 and result.rows[1].speedup < 0.2
    assert result.rows[1].spread == (result.rows[1].speedup,) * 2
    assert result.rows[1].relative_l2 == 0 and result.rows[0].note == ""


def test_the_result_survives_json(quick):
    assert msgspec.json.decode(msgspec.json.encode(quick), type=PeersBenchmark) == quick


def test_the_table(quick, capsys):
    missing = msgspec.structs.replace(quick.rows[1], speedup=None, seconds=None, spread=None, missing="not [here]")
    print_peers(msgspec.structs.replace(quick, rows=[quick.rows[0], missing, *quick.rows[2:]]))
    printed = capsys.readouterr().out
    assert all(name in printed for name in OURS) and f"missing: {missing.name}: not [here]" in printed
    assert "openvino 2" in printed


def test_the_plot(quick, tmp_path):
    missing = msgspec.structs.replace(quick.rows[1], speedup=None, seconds=None, spread=None, missing="not here")
    result = msgspec.structs.replace(quick, rows=[quick.rows[0], missing, *quick.rows[2:]])
    plot_peers([result], tmp_path / "peers.png")
    with Image.open(tmp_path / "peers.png") as image:
        assert image.format == "PNG" and 1200 < image.width < 2400 and 400 < image.height < 1600
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert (0xC2, 0x41, 0x0C) in colours  # ours


def test_several_comparisons_are_panels_beside_each_other(quick, tmp_path):
    """Bars of one contestant are in one row, which is empty where it did not take part."""
    other = msgspec.structs.replace(quick, preset="vits", rows=[quick.rows[0], *quick.rows[2:]])
    plot_peers([quick], tmp_path / "one.png")
    plot_peers([quick, other], tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width == one.width and one.height < two.height < 1.2 * one.height
        halves = [two.crop((left, 0, left + two.width // 2, two.height)) for left in (0, two.width // 2)]
        colours = [{colour for _, colour in half.convert("RGB").getcolors(1 << 24)} for half in halves]
    assert all((0xC2, 0x41, 0x0C) in half for half in colours)  # ours


def test_three_comparisons_have_room_for_their_labels(quick, tmp_path):
    rows = [msgspec.structs.replace(row, seconds=0.774, spread=(7.1, 7.2), speedup=7.17) for row in quick.rows]
    plot_peers([msgspec.structs.replace(quick, rows=rows)] * 3, tmp_path / "three.png")
    with Image.open(tmp_path / "three.png") as image:
        edge = image.convert("RGB").crop((image.width - 8, 0, image.width, image.height))
    assert edge.getcolors() == [(8 * image.height, (255, 255, 255))], "nothing is cut off at the right"


def test_the_order_of_the_bars(quick):
    slow, fast = (PeerRow(f"{speed}", False, "float32", 1.0, speed, (speed, speed)) for speed in (1.0, 2.0))
    missing, other = (PeerRow(name, False, missing="not here") for name in ("missing", "other"))
    comparisons = [msgspec.structs.replace(quick, rows=rows) for rows in ([slow, fast, missing], [slow, other])]
    assert ordered(comparisons) == ["2.0", "1.0", "missing", "other"]


def test_a_bars_name_says_what_it_ran_in_where_that_is_something_else():
    bf16 = PeerRow("OpenVINO, bfloat16", False, "float32", 1.0, note="asked for bfloat16")
    assert label_of(bf16) == "OpenVINO, bfloat16\n(ran in float32)"
    assert label_of(msgspec.structs.replace(bf16, precision="bfloat16", note="one pass")) == "OpenVINO, bfloat16"


@pytest.mark.slow
def test_torch_compile():
    """Small as can be, for its compiler takes seconds a kernel.

    View-SA and Time-SA of one image have the same kernels; without vector instructions these are shorter."""
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 1}):
        compiled = compare_peers(
            small(1, 1, 28, 28, global_layers=()), "tiny", 1, 2, SILENT, chosen(EAGER, "torch.compile, float32")
        ).rows[1]
    torch._dynamo.reset()
    assert compiled.missing is None and compiled.precision == "float32" and compiled.relative_l2 < 1e-4


def test_without_a_compiler(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    rows = compare_peers(small(), "tiny", 1, 2, SILENT, chosen(EAGER, *COMPILED)).rows
    assert [row.missing for row in rows] == [None] + [
        "torch.compile needs a C++ compiler; try: sudo apt install g++"
    ] * 2
    assert all(row.seconds is None for row in rows[1:])


def test_without_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    rows = compare_peers(small(), "tiny", 1, 2, SILENT, chosen(EAGER, "OpenVINO, float32", "OpenVINO, bfloat16")).rows
    assert [row.missing for row in rows[1:]] == ['OpenVINO is not installed; try: pip install "page4d[openvino]"'] * 2


def test_what_fails_while_it_runs_is_a_row_and_the_first_is_an_error():
    def breaks(course):
        runs = iter(range(2))

        def forward():
            if next(runs):
                raise RuntimeError("out of something\nand where")
            return torch.zeros(course.plan.layout.T)  # of another size than the layer

        return Runner(forward, "float32")

    broken = dataclasses.replace(contestants.contestants()[0], name="breaks", start=breaks)
    rows = compare_peers(small(), "tiny", 1, 2, SILENT, [*chosen(EAGER), broken]).rows
    assert rows[0].missing is None and rows[1].missing.startswith("ValueError: ") and "\n" not in rows[1].missing
    with pytest.raises(RuntimeError, match="out of something"):
        compare_peers(small(), "tiny", 2, 2, SILENT, [dataclasses.replace(broken)])


def test_the_command(monkeypatch, tmp_path):
    def bench(*arguments):
        return inside("peers", "-q", *arguments, function=app)

    field = chosen(EAGER, "PyTorch eager, bfloat16", NAMES[-1])
    monkeypatch.setattr(peers, "contestants", lambda: field)
    size = ("--preset", "tiny", "--T", 2, "--V", 2, "--height", 28, "--width", 28, "--rounds", 1)
    done = bench(*size, "--json", "--plot", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["rows"]] == [contestant.name for contestant in field]
    assert document["layout"]["T"] == 2
    assert (tmp_path / "a.png").is_file()
    reference, *others = document["rows"]
    assert reference["relative_l2"] is None and reference["spread"] == [1.0, 1.0]
    assert all(1e-4 < row["relative_l2"] < 5e-2 and row["missing"] is None for row in others)
    (tmp_path / "a.json").write_text(done.stdout)
    later = bench(
        *size, "--without", "bfloat16", "--json", "--plot", tmp_path / "c.png", "--beside", tmp_path / "a.json"
    )
    assert [row["name"] for row in json.loads(later.stdout)["rows"]] == [EAGER, NAMES[-1]], later.stderr
    assert (tmp_path / "c.png").stat().st_size > (tmp_path / "a.png").stat().st_size / 2
    refused = {
        "leaves some": ("--without", "page4d", "--without", "bfloat16"),
        "is a part of a contestant's name": ("--without", "no such"),
        "no results of page4d bench peers": ("--plot", tmp_path / "d.png", "--beside", tmp_path / "a.png"),
        "--beside is drawn with --plot": ("--beside", tmp_path / "a.json"),
    }
    for what, options in refused.items():
        done = bench(*size, *options)
        assert done.returncode == 2 and what in done.stderr and not (tmp_path / "d.png").exists()
    assert bench("--plot", tmp_path / "a.jpg").returncode == 2
    assert bench("--plot", tmp_path / "none" / "a.png").returncode == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert bench("--plot", tmp_path / "b.png").returncode == 5


def test_a_process_that_is_killed_is_a_row_and_the_others_go_on(monkeypatch):
    field = chosen(EAGER, "PyTorch eager, bfloat16", "page4d engines, float32")
    monkeypatch.setattr(peers, "contestants", lambda: field)
    monkeypatch.setattr(peers, "_pair", _killed)
    rows = peers.compare_apart(small(1, 1, 28, 28), "tiny", 1, 2).rows
    assert [row.name for row in rows] == [contestant.name for contestant in field]
    assert [row.missing is None for row in rows] == [True, True, False] and "was killed" in rows[2].missing
    assert rows[2].ours and rows[0].seconds > 0


def _killed(plan, preset, rounds, threads, name, scratch):
    if name == "page4d engines, float32":
        os.kill(os.getpid(), signal.SIGKILL)
    row = PeerRow(EAGER, False, "float32", 1.0, 1.0, (1.0, 1.0))
    other = msgspec.structs.replace(row, name=name)
    return PeersBenchmark(plan.layout, preset, 0, threads, rounds, "2026-01-31", "a CPU", [row, other], {})
