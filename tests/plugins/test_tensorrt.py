"""The plugin in TensorRT-RTX's builder, which needs no GPU: every attention node becomes one, where it may.

Plans of all variants are built in tests/export/test_tensorrt_plans.py.
"""

import re
from types import SimpleNamespace

import pytest
import torch

from page4d.errors import MissingBackendError
from page4d_engines.tensorrt.log import log_of
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launch_plan import Shape
from page4d_plugins.launcher import Launcher
from page4d_plugins.modes import Dtype, Mode
from page4d_plugins.node import FIELDS, Node
from page4d_plugins.tensorrt import rtx as tensorrt_rtx
from page4d_plugins.tensorrt.plugin import register
from tests.support.exports import without_plugins
from tests.support.models import EXPORTED

NODES = {"mask_head": 0, "view_sa": 1, "time_sa": 1, "global_sa": 1, "points": 5, "confidence": 5, "camera": 5}
"""Attention nodes of a stage, by its kind; the encoder has one a block, memory's Global-SA two."""


@pytest.fixture(scope="module")
def rtx():
    """TensorRT-RTX with the plugins, registered twice."""
    trt = tensorrt_rtx.load()
    register(trt)
    register(trt)
    return trt


def parse(trt, path, log):
    """A file as TensorRT-RTX reads it: (builder, parser with the weights), network, names of its plugin layers."""
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(path)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    plugins = [
        network.get_layer(i).name
        for i in range(network.num_layers)
        if network.get_layer(i).type == trt.LayerType.PLUGIN_V3
    ]
    return (builder, parser), network, plugins


def build(trt, path, target=None):
    """What TensorRT-RTX makes of a file: its plugin layers, and the engine's layers as (name, type, text)."""

    log = log_of(trt)
    log.begin()
    (builder, _parser), network, plugins = parse(trt, path, log)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if target is not None:
        config.num_compute_capabilities = 1
        assert config.set_compute_capability(target, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.errors
    layers = re.findall(r"^Name: (.*?), LayerType: (\w+), (.*)$", log.end(), re.M)
    assert layers
    return SimpleNamespace(plugins=plugins, layers=layers, size=plan.nbytes)


@pytest.fixture(scope="module")
def kinds(made):
    """A stage of every kind of a variant, and masked Time-SA where only some is: (entry, file, attention nodes)."""

    def written(variant):
        exported = made(variant, "float16")
        entries = {(entry.kind, entry.inputs, entry.outputs): entry for entry in reversed(list(exported.plan.stages()))}
        attentions = NODES | {"encoder": exported.plan.config.encoder_depth}
        if exported.plan.config.built_on_vggt:  # its heads have none that is the plugin's
            attentions |= {"camera": 0, "depth": 0, "points": 0}
        return [
            (entry, exported.folder / "onnx" / f"{entry.name}.onnx", attentions[entry.kind])
            for entry in entries.values()
        ]

    return written


@pytest.mark.parametrize("variant", [name for name in EXPORTED if name != "late"])
def test_every_attention_is_read_as_the_plugin(variant, rtx, kinds):
    for entry, path, nodes in kinds(variant):
        expected = 2 if variant == "memory" and entry.kind == "global_sa" else nodes
        _, _, plugins = parse(rtx, path, log_of(rtx))
        assert len(plugins) == expected, entry.name


def test_every_attention_of_a_built_engine_is_the_plugin(rtx, made):
    exported = made("default", "bfloat16")
    for name in ("encoder", "mask_head", "view_sa.1", "time_sa.1", "global_sa.1"):
        built = build(rtx, exported.folder / "onnx" / f"{name}.onnx")
        expected = NODES | {"encoder": exported.plan.config.encoder_depth}
        custom = sum(kind == "custom_layer" for _, kind, _ in built.layers)
        assert custom == len(built.plugins) == expected[name.partition(".")[0]], name
        assert not any("mha" in layer.lower() or "softmax" in layer.lower() for layer, _, _ in built.layers), name


def test_native_leaves_attention_to_tensorrt(rtx, kinds, tmp_path):
    """A node that names no plugin is fused, although the plugin is registered."""
    fused = 0
    for entry, path, nodes in kinds("default"):
        built = build(rtx, without_plugins(path, tmp_path / path.name))
        assert not built.plugins and not any(kind == "custom_layer" for _, kind, _ in built.layers)
        attentions = sum("mha" in name.lower() for name, _, _ in built.layers)
        assert attentions == nodes, entry.name
        fused += attentions
    assert fused >= 4


@pytest.mark.parametrize("target", ["SM86", "SM89", "SM120"])
def test_an_engine_for_another_chip(target, rtx, kinds):
    """A plugin asks nothing of the machine that builds."""
    path = next(path for entry, path, _ in kinds("default") if entry.kind == "time_sa")
    assert len(build(rtx, path, getattr(rtx.ComputeCapability, target)).plugins) == 1


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("BiasedAttention", {}),
        ("BiasedAttention", {"row_period": 1374, "row_leading": 5, "row_gain": 64.0}),
        ("BiasedAttention", {"epipolar_band": 28.0, "epipolar_penalty": 4.0}),
        ("SegmentAttention", {}),
    ],
)
def test_what_an_engine_keeps_of_a_node_makes_the_same_plugin(op, fields, rtx):
    creator = rtx.get_plugin_registry().get_creator(op, "1", "page4d")
    numpy_fields = _collection(rtx, op, fields)
    first = creator.create_plugin("node", numpy_fields, rtx.TensorRTPhase.BUILD)
    again = creator.create_plugin("node", first.get_fields_to_serialize(), rtx.TensorRTPhase.RUNTIME)
    assert first.node == again.node == again.clone().node == Node(op, fields)
    assert (again.plugin_name, again.plugin_version, again.plugin_namespace) == (op, "1", "page4d")


def test_a_machine_without_a_gpu_says_so(rtx):
    """Launching is refused with an error where building is not."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingBackendError, match="driver"):
        Launcher(Shape(Mode.DENSE, Dtype.FLOAT16, 1, 1, 1, 1), 0, shipped())


def test_half_of_an_option_is_refused(rtx, caplog):
    creator = rtx.get_plugin_registry().get_creator("BiasedAttention", "1", "page4d")
    assert (
        creator.create_plugin("node 7", _collection(rtx, "BiasedAttention", {"row_period": 5}), rtx.TensorRTPhase.BUILD)
        is None
    )
    assert "node 7" in caplog.text and "row_period" in caplog.text and "row_leading" in caplog.text


def _collection(trt, op, fields):
    import numpy as np

    types = {int: (np.int32, trt.PluginFieldType.INT32), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    collected = []
    for name, value in fields.items():
        dtype, kind = types[FIELDS[op][name]]
        collected.append(trt.PluginField(name, np.array([value], dtype), kind))
    return trt.PluginFieldCollection(collected)
