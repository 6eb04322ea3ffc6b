"""Engine folders that were changed at random are refused with an error, or run.

`python tests/support/hostile/fuzz_folders.py --count 100000 --seed 1`

A case changes values of the manifest, its text, or files of the folder, whose hashes are then made right, or not.
Whatever loads runs; results that differ from the unchanged folder's must be explained by what was changed. Of manifests
that say the same to a runtime one runs. With `--cpp <build>/tests/fuzz_manifest` the C++ reader's verdict on every
manifest is compared with Python's.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import msgspec
import numpy as np
import onnx
from onnx import TensorProto

from page4d.errors import EngineError, OutOfMemoryError
from page4d.files import sha256
from page4d.manifest import CONSTANTS
from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.self_check import self_check

SECONDS = 60  # that a case may take
VALUES = [
    *(0, 1, 2, 3, 6, -1, 14, 25, 128, 256, 65535, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64 - 1, 2**70, 1.5, 1e300),
    *(-0.0, True, None, "", "tokens", "memory", "mask", "images", "special", "layers.1", "encoder", "time_sa.0"),
    *("mask_head", "time_sa", "points", "camera", "depth", "depth_confidence", "world", "present"),
    *("_out", "uint8", "float16", "a/b", "../x", "/dev/zero"),
    *("onnx/encoder.onnx", "onnx/time_sa.0.onnx", "golden", "\0", "\u202e", [], {}, [1], ["tokens"]),
]


class TooSlow(BaseException):
    """A case went on for longer than it may."""


# ---- changes


def change(value, draw):
    """One value of a document."""
    if isinstance(value, dict | list) and value and draw.randrange(12):
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        way = draw.randrange(20)
        if way == 0:
            del value[key]
        elif way == 1 and isinstance(value, list):
            value.append(copy.deepcopy(value[key]))
        elif way == 2 and isinstance(value, list):
            value.insert(draw.randrange(len(value)), value.pop(key))
        elif way == 3 and isinstance(value, dict):
            value[str(draw.choice(VALUES))] = value.pop(key)
        else:
            value[key] = change(value[key], draw)
        return value
    return copy.deepcopy(draw.choice(VALUES))


def change_everywhere(value, old, new):
    """A value wherever it stands."""
    if isinstance(value, dict):
        return {key: change_everywhere(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [change_everywhere(inner, old, new) for inner in value]
    return new if value == old and type(value) is type(old) else value


def damage(text, draw):
    """Bytes, as a bad disk or a bad editor leaves them."""
    content = bytearray(text)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        way = draw.randrange(5)
        if way == 0 and content:
            content[min(at, len(content) - 1)] = draw.randrange(256)
        elif way == 1:
            del content[at : at + draw.randint(1, 30)]
        elif way == 2:
            content[at:at] = content[draw.randrange(len(content) + 1) :][: draw.randint(1, 30)]
        elif way == 3:
            content[at:at] = draw.choice(
                [b"1e400", b"NaN", b"[" * 200, b'"\\ud800"', b"9" * 40, b'"format":1,', b"\0", b"\xef\xbb\xbf"]
            )
        else:
            del content[at:]
    return bytes(content)


def change_graph(path, draw):
    """One thing in an ONNX file."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    place = draw.choice([*graph.initializer])
    ways = {
        "a weight lies in another file": lambda: lay(
            place,
            draw.choice(["encoder.onnx.data", "../manifest.json", "/etc/passwd", "constants.safetensors", "x", ""]),
        ),
        "a weight of another size": lambda: place.dims.append(draw.choice([0, 2, -1, 2**40])),
        "a weight of another type": lambda: setattr(place, "data_type", draw.choice([1, 2, 7, 8, 10, 16, 22, 99])),
        "an input of another name": lambda: setattr(graph.input[0], "name", "other"),
        "an output of another type": lambda: setattr(
            graph.output[0].type.tensor_type, "elem_type", draw.choice([0, 6, 10, 11])
        ),
        "a side of another size": lambda: setattr(
            graph.input[0].type.tensor_type.shape.dim[0], "dim_value", draw.choice([0, 1, 7, 2**40])
        ),
        "a side without a size": lambda: setattr(graph.output[0].type.tensor_type.shape.dim[0], "dim_param", "n"),
        "a value of another shape": (
            lambda: graph.value_info[0].type.tensor_type.shape.dim.add(dim_value=draw.choice([1, 3, 2**40]))
        ),
        "another operator": lambda: setattr(
            draw.choice(graph.node), "op_type", draw.choice(["Add", "Nothing", "Loop", "MatMul", "Identity"])
        ),
        "an operator of another domain": lambda: setattr(
            draw.choice(graph.node), "domain", draw.choice(["evil", "com.microsoft", "page4d"])
        ),
        "a node less": lambda: graph.node.remove(draw.choice(graph.node)),
        "another opset": lambda: setattr(model.opset_import[0], "version", draw.choice([0, 1, 12, 99, 2**40])),
        "another input of a node": lambda: draw.choice(graph.node).input.append(draw.choice(graph.node).output[0]),
    }
    way = draw.choice(sorted(ways))
    with contextlib.suppress(IndexError, ValueError):  # what it would change is not there, or the value does not go in
        ways[way]()
    path.write_bytes(model.SerializeToString())
    return way


def lay(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.ClearField("raw_data")
    for key, value in (("location", location), ("offset", "0")):
        tensor.external_data.add(key=key, value=value)


def change_file(path, draw):
    """Change a file of the folder; a description of what was done."""
    way = draw.randrange(6)
    if path.suffix == ".onnx" and way < 4:
        return change_graph(path, draw)
    if way == 4:
        content = path.read_bytes()
        path.unlink()
        kinds = {
            "a FIFO": lambda: os.mkfifo(path),
            "a folder": path.mkdir,
            "a link out": lambda: path.symlink_to("/dev/zero"),
            "a link in a circle": lambda: path.symlink_to(path.name),
            "nothing": lambda: None,
            "a link to what is inside": lambda: ((path.parent / "kept").write_bytes(content), path.symlink_to("kept")),
        }
        kind = draw.choice(sorted(kinds))
        kinds[kind]()
        return kind
    path.write_bytes(damage(path.read_bytes(), draw))
    return "damage"


# ---- a folder that is changed, looked at, and made good again


class Folder:
    """A copy of an engine folder, what its clip gives, and what becomes of changed copies."""

    def __init__(self, source, scratch):
        self.source, self.path = source, scratch / "engines"
        self.text = (source / "manifest.json").read_bytes()
        self.base = json.loads(self.text)
        self.seen = {}  # what a manifest says to a runtime, and what came of it
        shutil.copytree(source, self.path)
        layout = read_manifest(source).layout
        self.images = np.random.default_rng(0).integers(0, 255, layout.images_shape, np.uint8)
        self.reference = self.results(Pipeline.load(source, Backend.ONNXRUNTIME, threads=1))

    def results(self, pipeline):
        return {name: array.copy() for name, array in pipeline.run(self.images).tensors().items()}

    def mutant(self, draw):
        """Text of a manifest, and the changed files: by name, what was done to them and whether their hash is right."""
        manifest, changed = json.loads(self.text), {}
        if draw.random() < 0.08:
            name = draw.choice(sorted(self.base["files"]))
            corrected = draw.random() < 0.6
            changed[name] = (change_file(self.path / name, draw), corrected)
            if corrected and (self.path / name).is_file():
                manifest["files"][name] = sha256(self.path / name)
        if not changed or draw.random() < 0.3:
            for _ in range(draw.randint(1, 3)):
                section = draw.choice(["stages", "stages", "keep", "layout", "golden", "files", "model", None])
                if section in manifest:
                    manifest[section] = change(manifest[section], draw)
                else:
                    manifest = change(manifest, draw)
                    manifest = manifest if isinstance(manifest, dict) else {"was": manifest}
            if draw.random() < 0.2:
                manifest = change_everywhere(
                    manifest, draw.choice([1, 2, 4, 9, 28, 128, "tokens", "mask", "float32"]), draw.choice(VALUES)
                )
        text = encoded(manifest)
        return (damage(text, draw) if draw.random() < 0.1 else text), changed

    def restore(self, changed):
        for name in changed:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            (path.parent / "kept").unlink(missing_ok=True)
            shutil.copy(self.source / name, path)

    def outcome(self, text, changed, sliding):
        """`refused: ..`, `same` or `other: ..`, or an exception that nobody documents."""
        (self.path / "manifest.json").write_bytes(text)
        try:
            folder = EngineFolder.open(self.path)
            essence = (sliding, msgspec.json.encode(essential(folder.manifest)))
            if not changed and essence in self.seen:
                return self.seen[essence]
            pipeline = Pipeline.of(folder, Backend.ONNXRUNTIME, ThreadPool.of(1), sliding=sliding)
            results = self.results(pipeline)
            if sliding and folder.manifest.layout.T > 1:
                pipeline.run(self.images, shared=1)
            if folder.manifest.golden is not None and (changed or json.loads(text)["golden"] != self.base["golden"]):
                self_check(folder, pipeline)
        except (EngineError, OutOfMemoryError) as error:
            return (
                f"refused: {'its manifest' if error.what.startswith('manifest.json') else 'a file of it'},"
                f" {type(error).__name__}"
            )
        is_same = results.keys() == self.reference.keys() and all(
            np.array_equal(results[name], array, equal_nan=True) for name, array in self.reference.items()
        )
        outcome = "same" if is_same else f"other: {self.explanation(results, changed)}"
        if not changed:
            self.seen[essence] = outcome
        return outcome

    def explanation(self, results, changed):
        """Why results differ, where that is what was asked for; else `unexplained`."""
        if any(name.endswith((".onnx", ".data", CONSTANTS)) and corrected for name, (_, corrected) in changed.items()):
            return "other weights or another graph, with its hash"
        if results.keys() < self.reference.keys() and all(
            np.array_equal(array, self.reference[name]) for name, array in results.items()
        ):
            return "fewer results, which are the same"
        return "unexplained"


def encoded(manifest):
    """As JSON, of whatever numbers and strings."""
    try:
        return msgspec.json.encode(manifest)
    except (ValueError, OverflowError, UnicodeError):
        return json.dumps(manifest).encode("utf-8", "surrogatepass")


def essential(manifest):
    """Without what no runtime reads."""
    stages = tuple(msgspec.structs.replace(entry, accuracy={}, eps={}, floating=()) for entry in manifest.stages)
    return msgspec.structs.replace(
        manifest, stages=stages, page4d="", weights="", loaded=None, verification=None, made={}
    )


def export(folder):
    """A small engine folder with its golden clip."""
    from page4d import Layout, ModelConfig, Page4D
    from page4d.precision import Precision
    from page4d_export.exporter import write_verified
    from page4d_export.plan.export_plan import ExportPlan

    config = ModelConfig.preset("tiny", depth=2, encoder_depth=2)
    write_verified(Page4D(config, seed=0), ExportPlan.make(config, Layout(2, 2, 28, 42), Precision.FLOAT32), folder)
    return folder


def fuzz(source, count, seed, scratch, progress=lambda text: None):
    """Counts of `count` cases by outcome; manifests that failed; manifests to ask C++ about, with Python's verdict."""
    folder, draw = Folder(source, scratch), random.Random(seed)
    outcomes, failures, verdicts = collections.Counter(), [], []

    def stop(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for number in range(count):
            text, changed = folder.mutant(draw)
            signal.alarm(SECONDS)
            try:
                outcome = folder.outcome(text, changed, sliding=draw.random() < 0.3)
            except (Exception, TooSlow) as error:
                outcome = f"FAILED: {type(error).__name__}: {error}"[:200]
                failures.append((text, changed, "".join(traceback.format_exception(error))))
            finally:
                signal.alarm(0)
            if outcome == "other: unexplained":
                failures.append((text, changed, outcome))
            outcomes[outcome] += 1
            if b"\n" not in text:
                verdicts.append((text, not outcome.startswith("refused: its manifest")))
            folder.restore(changed)
            if number % 1000 == 999:
                progress(f"{number + 1}: {dict(outcomes)}")
    finally:
        signal.signal(signal.SIGALRM, before)
    return outcomes, failures, verdicts


def disagreements(binary, verdicts, scratch):
    """Manifests that one reader takes and the other does not."""
    lines = scratch / "manifests"
    lines.write_bytes(b"".join(text + b"\n" for text, _ in verdicts))
    done = subprocess.run([binary, "--verdicts", lines], capture_output=True, text=True, check=True)
    read_by_cpp = [line == "read" for line in done.stdout.splitlines()]
    assert len(read_by_cpp) == len(verdicts)
    return [(text, python) for (text, python), cpp in zip(verdicts, read_by_cpp, strict=True) if python != cpp]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engines", type=pathlib.Path, help="a folder to change copies of; without it one is exported")
    parser.add_argument("--cpp", help="the C++ fuzzer, to be asked for its verdicts")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for manifests that failed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as name:
        scratch = pathlib.Path(name)
        source = options.engines or export(scratch / "exported")
        started = time.perf_counter()
        outcomes, failures, verdicts = fuzz(
            source, options.count, options.seed, scratch, lambda text: print(text, file=sys.stderr, flush=True)
        )
        print(f"{options.count} changed folders, seed {options.seed}, {time.perf_counter() - started:.0f} s")
        for outcome, times in outcomes.most_common():
            print(f"{times:8} {outcome}")
        apart = disagreements(options.cpp, verdicts, scratch) if options.cpp else []
        if options.cpp:
            read = sum(python for _, python in verdicts)
            print(f"{len(verdicts)} manifests by both readers, {read} of them read: {len(apart)} times they disagree")
        failures += [
            (text, {}, f"Python {'reads' if python else 'refuses'} it, C++ does not agree") for text, python in apart
        ]
        if options.keep is not None:
            options.keep.mkdir(exist_ok=True)
            for number, (text, changed, why) in enumerate(failures[:100]):
                (options.keep / f"{number}.json").write_bytes(text)
                (options.keep / f"{number}.txt").write_text(f"{changed}\n{why}\n")
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
