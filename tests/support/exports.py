"""Engine folders made once for all processes of a run, and changed ones."""

import contextlib
import fcntl
import json
import os
import shutil

import numpy as np
import pytest

from tests.support.models import config_of, layout_of, lively


@contextlib.contextmanager
def making(folder):
    """Whether it is this process that makes what is in a folder; others wait until it is done."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        yield not done.exists()
        done.touch()


def by_time(whole, folder, precision="float32"):
    """Engines of `whole`'s model in a folder that is there; a call of their encoder sees one timestep."""
    from page4d.precision import Precision
    from page4d_export.exporter import write_unverified
    from page4d_export.plan.export_plan import ExportPlan

    plan = ExportPlan.make(
        whole.plan.config, whole.plan.layout, Precision(precision), whole.plan.keypoints, whole.plan.layout.V
    )
    write_unverified(whole.model, plan, folder)
    return Made(folder, whole.model, plan, whole.clip)


def rehash(folder, change=lambda manifest: None):
    """Change the manifest's JSON in place, and make the hashes of all files that it lists right."""
    from page4d.files import sha256

    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    for name in manifest["files"]:
        if os.path.isfile(folder / name):
            manifest["files"][name] = sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def load_refused(folder, message):
    """The error of the engine folder that loading must end in; `message` is a regular expression."""
    from page4d.errors import EngineError
    from page4d_engines import Backend, Pipeline

    with pytest.raises(EngineError, match=message) as caught:
        Pipeline.load(folder, Backend.ONNXRUNTIME, threads=1)
    assert caught.value.exit_code == 4
    return caught.value


def content(folder):
    """Hashes of the files in a folder by path, and `False` for each folder in it."""
    from page4d.files import sha256

    return {path.relative_to(folder).as_posix(): path.is_file() and sha256(path) for path in folder.rglob("*")}


def verified(precision, shared, static_ranges=False):
    """The default model's engine folder in a precision, exported as a user does, once for all processes of a run."""
    from page4d.precision import Precision
    from page4d_export.exporter import write_verified
    from page4d_export.plan.export_plan import ExportPlan

    config, layout = config_of("default", encoder_depth=2), layout_of("default", 56, 70)
    plan = ExportPlan.make(config, layout, Precision(precision), static_ranges=static_ranges)
    model = lively(plan.config)
    folder = shared / f"{precision}{'-static' * static_ranges}" / "engines"
    with making(folder.parent) as first:
        if first:
            write_verified(model, plan, folder)
    return Made(folder, model, plan, None)


def rewrite(path, manifest):
    """The manifest with the hashes of the files that are there."""
    import msgspec

    from page4d.files import sha256
    from page4d.manifest_checks.manifest_file import write_manifest

    files = {
        file.relative_to(path).as_posix(): sha256(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }
    write_manifest(path, msgspec.structs.replace(manifest, files=files))


def with_golden(exported, folder):
    """Write a copy of an engine folder with a golden clip: an export's, but for the export to ONNX, which is there."""
    import msgspec

    from page4d.manifest_checks.manifest_file import read_manifest
    from page4d_export import exporter, verify
    from page4d_export.sample_clip import SampleClip

    shutil.copytree(exported.folder, folder)
    model, plan = exported.model, exported.plan
    tolerance, clip = plan.precision.tolerance, SampleClip.rendered(plan.layout)
    stages = {stage.stage: stage for stage in verify.verify(model, plan, folder / "onnx", clip, tolerance)}
    manifest = read_manifest(folder)
    gate = exporter.Gate(plan, clip, tolerance, stages)
    golden = exporter.write_golden(folder, manifest, gate, SampleClip.rendered)
    rewrite(folder, msgspec.structs.replace(manifest, golden=golden))


def without_plugins(source, target):
    """Write a stage's file as `--attention native` does: its nodes name no plugin. The trace is not made anew."""
    import onnx

    from page4d.ops import PLUGIN_ATTRIBUTES

    model = onnx.load(source, load_external_data=source.parent != target.parent)  # weights beside it stay there
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name not in PLUGIN_ATTRIBUTES]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(model, target)
    return target


class Made:
    """An engine folder, the model that it was made from, and a clip of its shape."""

    def __init__(self, folder, model, plan, clip):
        self.folder, self.model, self.plan, self.clip = folder, model, plan, clip

    def inputs(self, keypoints):
        """What a run takes beside the images, by name; maps float32 `[T,V,P,1]`."""
        rng = np.random.default_rng(0)
        layout = self.plan.layout
        inputs = {}
        if self.model.config.takes_mask:
            inputs["mask_ext"] = rng.random(layout.patch_map_shape).astype(np.float32)
        if keypoints:
            inputs["keypoints"] = rng.random(layout.patch_map_shape).astype(np.float32)
        if self.model.config.epipolar:
            inputs["cameras"] = {name: camera.to_mapping() for name, camera in self.clip.cameras.items()}
        return inputs
