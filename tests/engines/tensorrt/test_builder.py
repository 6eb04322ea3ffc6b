"""Plans built by TensorRT-RTX, on a machine without a GPU: what is in them, and what is refused."""

import itertools
import re

import onnx
import pytest
from onnx import TensorProto, helper

from page4d import Layout, ModelConfig, Page4D
from page4d.errors import AccuracyError, EngineError, OutOfMemoryError, UsageError
from page4d.manifest import Flavor
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder, _failure, attention_nodes
from page4d_engines.tensorrt.layers import AttentionNode, Layer, Tensor, check
from page4d_engines.tensorrt.library import Library
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.exports import without_plugins


@pytest.fixture(scope="module")
def rtx():
    return Library.find(Flavor.RTX)


@pytest.fixture
def stage(made, tmp_path):
    """The file of one stage: (variant, name, choice) -> path."""

    def write(variant, name, choice=AttentionChoice.AUTO):
        path = made(variant, "float16").folder / "onnx" / f"{name}.onnx"
        return path if choice is AttentionChoice.AUTO else without_plugins(path, tmp_path / path.name)

    return write


@pytest.mark.parametrize(
    ("variant", "name", "choice", "plugins", "fused"),
    [
        ("memory", "global_sa.1", AttentionChoice.AUTO, 2, 0),
        ("memory", "global_sa.1", AttentionChoice.NATIVE, 0, 2),
        ("page4d 2026", "time_sa.10", AttentionChoice.NATIVE, 0, 2),
    ],
)
def test_every_attention_is_a_plugin_or_fused(rtx, stage, variant, name, choice, plugins, fused):
    path = stage(variant, name, choice=choice)
    told = []
    plan = PlanBuilder(rtx, BuildOptions(("sm_89", "sm_120"))).build(
        name, path, "float16", Progress(lambda what, share: told.append(share))
    )
    assert (plan.plugins, plan.fused) == (plugins, fused) and len(plan.content) > 1e5
    assert told and all(0 < share <= 1 for share in told)
    names = {tensor.name for layer in plan.layers for tensor in (*layer.inputs, *layer.outputs)}
    model = onnx.load(path, load_external_data=False)
    assert {value.name for value in (*model.graph.input, *model.graph.output)} <= names, (
        "the layer list is of this graph"
    )


@pytest.mark.parametrize(("variant", "name"), [("dilated", "global_sa.1"), ("memory", "view_sa.0")])
def test_a_plan_with_an_n_by_n_tensor_is_refused(rtx, stage, variant, name):
    """Key segments and the epipolar prior, left to TensorRT's own fusion, are not fused."""
    with pytest.raises(
        AccuracyError, match=rf"(?s)plan of {name} holds an n x n tensor.*of layer .*--attention plugin"
    ):
        PlanBuilder(rtx, BuildOptions()).build(name, stage(variant, name, choice=AttentionChoice.NATIVE), "float16")


def test_a_real_block_at_24_times_4_views(rtx, tmp_path):
    """ViT-L's Time-SA, 32,976 tokens: 130 GiB of logits if it were not fused."""
    config = ModelConfig.preset("vitl", depth=1, encoder_depth=1, global_layers=())
    model = Page4D(config)
    for choice in (AttentionChoice.AUTO, AttentionChoice.NATIVE):
        plan = ExportPlan.make(config, Layout(24, 4, 518, 518), Precision.FLOAT16, attention=choice)
        (tmp_path / choice.value).mkdir()
        path = OnnxExporter(tmp_path / choice.value, config.head_dim, choice).write(stages_of(model, plan)["time_sa.0"])
        (node,), native = attention_nodes(onnx.load(path, load_external_data=False))
        assert node.queries == node.keys == 32_976 and native == (choice is AttentionChoice.NATIVE)
        built = PlanBuilder(rtx, BuildOptions(("sm_89",))).build("time_sa.0", path, "float16")
        assert (built.plugins, built.fused) == ((0, 1) if native else (1, 0))


def test_ctrl_c_ends_a_build(rtx, stage):
    def interrupted(what, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PlanBuilder(rtx, BuildOptions()).build(
            "mask_head", stage("default", "mask_head"), "float16", Progress(interrupted)
        )


def test_a_file_that_tensorrt_does_not_take(rtx, tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2, 2])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [])
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", [value], [other])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"(?s)refuses odd.*Det"):
        PlanBuilder(rtx, BuildOptions()).build("odd", tmp_path / "x.onnx", "float16")


def test_a_stage_that_does_not_fit_into_memory(rtx):
    failure = _failure(rtx, "time_sa.3", ["10: Could not find any implementation for node MatMul_7."])
    assert isinstance(failure, OutOfMemoryError) and failure.exit_code == 6
    assert re.search(
        r"no kernel for time_sa.3 that fits into memory\s+got: .*MatMul_7.*[\d.]+ GB of main memory free\)\s+try:.*--T",
        str(failure),
    )
    assert isinstance(_failure(rtx, "time_sa.3", ["something else"]), EngineError)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (BuildOptions(("sm_89", "sm_90")), "(?s)sm_90.*sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
        (BuildOptions(hardware_compat=True), "--hardware-compat"),
        (BuildOptions(optimization_level=6), "(?s)--optimization-level.*6"),
    ],
)
def test_options_that_are_refused(rtx, options, says):
    with pytest.raises(UsageError, match=says):
        PlanBuilder(rtx, options)


# ---- the layer list


NODE = AttentionNode("node", 51, 40, channels=16, prior=False, parts=1)


def layer(name="gemm", kind="gemm", inputs=(), shape=(204, 128)):
    return Layer(name, kind, inputs, (Tensor("logits", shape, "Half"),), ())


def plugin():
    return layer("node", "custom_layer")


def test_a_layer_list_is_compared_with_the_attentions():
    check("s", [layer(), plugin()], [NODE], "float16", native=False)
    check("s", [layer(), layer("_gemm_mha_v2", "kgen")], [NODE], "bfloat16", native=True)
    for native, layers in ((False, [layer()]), (False, [plugin(), plugin()]), (True, [plugin()])):
        with pytest.raises(AccuracyError, match=r"(?s)not all attentions of s became.* of 1: node"):
            check("s", layers, [NODE], "float16", native)
    for shape, precision in itertools.product(((4, 2, 51, 40), (8, 40, 51)), ("float16", "float32")):
        with pytest.raises(AccuracyError, match=r"(?s)n x n.*logits .*of layer unfused"):
            check("s", [plugin(), layer("unfused", "kgen", shape=shape)], [NODE], precision, native=False)


def test_few_keys_are_no_square():
    """q of a node with as many keys as channels looks like its logits; those are as small."""
    check(
        "s",
        [plugin(), layer("rope", "kgen", shape=(1, 2, 51, 40))],
        [NODE._replace(channels=40)],
        "float16",
        native=False,
    )


def test_the_prior_of_all_pairs_is_found():
    for shape in ((34, 34), (2, 2, 17, 17)):
        with pytest.raises(AccuracyError, match="n x n"):
            check(
                "s",
                [plugin(), layer("prior", "kgen", shape=shape)],
                [AttentionNode("node", 34, 34, 64, True, 1)],
                "float16",
                native=False,
            )


def test_wide_products_are_refused():
    wide, half, scalar = (
        Tensor("x", (204, 128), "Float"),
        Tensor("x", (204, 128), "Half"),
        Tensor("alpha", (1,), "Float"),
    )
    check("s", [layer(inputs=(half, scalar)), layer("norm", "kgen", (wide,))], [], "float16", native=True)
    check("s", [layer(inputs=(wide, scalar))], [], "float32", native=True)
    with pytest.raises(AccuracyError, match="product of s is computed in float32"):
        check("s", [layer(inputs=(wide, scalar))], [], "float16", native=True)


# ---- versions


def test_known_bad_versions_are_warned_of(rtx):
    def warned(version, chip, native):
        return Library(Flavor.TENSORRT, rtx.module, version).warnings(chip, native)

    assert rtx.warnings("sm_120", native=True) == []
    for version in ((10, 3, 0), (10, 4, 0)):
        assert any("issues/4723" in line for line in warned(version, "sm_87", native=False))
    assert any("issues/4837" in line for line in warned((10, 16, 1), "sm_120", native=True))
    assert not warned((10, 16, 1), "sm_120", native=False), "the plugin is not TensorRT's attention"
    assert not warned((10, 16, 1), "sm_89", native=True) and not warned((11, 1, 0), "sm_120", native=True)
    assert any("issues/4837" in line for line in warned((10, 13, 0), None, native=True)), "the GPU is not known"
