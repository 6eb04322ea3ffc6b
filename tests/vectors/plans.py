"""Buffer plans, and the steps of a window over them."""

import itertools
import json
from dataclasses import asdict

from page4d.precision import Precision
from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_engines.runtime.schedule import CopyRows, Run, schedule
from tests.support.models import EXPORTED
from tests.vectors.manifests import manifest_of, read
from tests.vectors.published_manifests import manifest_of_model

BF16 = {"default", "pi3"}  # of the others float32; float16 is of the same size


def plans():
    """Every kind of stage; what lies where, and the steps of a window."""
    exported = [(variant, Precision.BFLOAT16 if variant in BF16 else Precision.FLOAT32, 1) for variant in EXPORTED]
    others = [("memory", Precision.FLOAT16, 2), ("default", Precision.INT8, 1), ("default", Precision.FP8, 1)]
    # an encoder call has one timestep, one image, or one and a half timesteps, where carried images are computed anew
    slides = [("default", Precision.FLOAT32, 2), ("late", Precision.BFLOAT16, 1), ("memory", Precision.FLOAT16, 3)]
    # heads that see one image a call, and all
    heads = [_plan("vggt", Precision.FLOAT16, 1, head_images=1), _plan("vggt", Precision.BFLOAT16, 2, head_images=6)]
    return {
        "plans": [*(_plan(variant, precision, B) for variant, precision, B in [*exported, *others]), *heads],
        "slides": [
            _plan(variant, precision, 1, encoder_images, sliding=True) for variant, precision, encoder_images in slides
        ],
    }


def _plan(variant, precision, B, encoder_images=None, sliding=False, head_images=None):
    manifest = manifest_of(variant, precision, B, encoder_images, head_images)
    return plan_of(f"{variant} {precision} B={B}", manifest, sliding)


def published_plans():
    """Of Depth Anything 3 and Pi3X, with the choice of a reference view and without."""
    cases = {
        "da3": manifest_of_model("da3", 4),
        "da3 of two views": manifest_of_model("da3", 2),
        "da3 of the first view": manifest_of_model("first", 4),
        "da3 of two clips": manifest_of_model("da3", 3, 2, Precision.BFLOAT16),
        "da3 of known cameras": manifest_of_model("known", 4, precision=Precision.FLOAT16),
        "da3 of two clips of known cameras": manifest_of_model("known", 3, 2),
        "pi3x": manifest_of_model("pi3x", 3, precision=Precision.FLOAT16),
        "pi3x of two clips": manifest_of_model("pi3x", 3, 2),
        "da3-mono": manifest_of_model("mono", 4, precision=Precision.FLOAT16),
        "da3-metric": manifest_of_model("metric", 4),
    }
    return {"plans": [plan_of(name, manifest) for name, manifest in cases.items()]}


def plan_of(name, manifest, sliding=False):
    """The plan of a manifest, as plain data."""
    plan = BufferPlan.make(read(json.dumps(manifest)), sliding=sliding)
    steps = []
    for step in schedule(plan):
        if isinstance(step, Run):
            inputs, outputs = _views(step.call.inputs), _views(step.call.outputs)
            steps.append({"stage": step.call.stage.name, "inputs": inputs, "outputs": outputs, "gathers": []})
        elif isinstance(step, CopyRows):
            steps[-1]["gathers"].append(_numbers(step))
    entry = {
        "name": name,
        "manifest": manifest,
        "sizes": plan.sizes,
        "total": plan.total,
        "starts": _views(plan.starts),
        "outputs": _views(plan.outputs),
        "steps": steps,
    }
    if plan.reference is not None:
        entry["reference"] = asdict(plan.reference)
    T, V = manifest["layout"]["T"], manifest["layout"]["V"]
    return entry | {"carries": [_carry(plan, shared * V) for shared in range(1, T)]} if sliding else entry


def _views(tensors):
    return {name: asdict(view) for name, view in tensors.items()}


def _carry(plan, images):
    """Of a window that begins with so many images of the one before: what is moved, and the calls that are left."""
    steps = schedule(plan, carried=images)
    moved = [
        _numbers(step)
        for step in itertools.takewhile(lambda step: not isinstance(step, Run), steps)
        if isinstance(step, CopyRows)
    ]
    return {"images": images, "gathers": moved, "calls": [step.number for step in steps if isinstance(step, Run)]}


def _numbers(step):
    return [
        step.source.buffer,
        step.target.buffer,
        step.source_offset,
        step.target_offset,
        step.rows,
        step.width,
        step.pitch,
    ]
