"""Whether every file that a manifest names is listed with its hash.

`engines/cpp/src/manifest_checks/manifest_files.cpp` mirrors this.
"""

from __future__ import annotations

import pathlib
import re

from page4d.errors import EngineError
from page4d.manifest import CONSTANTS, Golden, Manifest
from page4d.manifest_checks.manifest_error import inconsistent

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_TOLERANCE = 1e9


def check_files(manifest: Manifest) -> None:
    """Refuse names outside the folder, and uses of files that are not listed.

    Raises:
        EngineError: naming the first one.
    """
    for name, digest in sorted(manifest.files.items()):
        if not is_inside(name):
            raise EngineError(
                "manifest.json names a file outside the engine folder", got=name, allowed="relative paths inside it"
            )
        if _SHA256.fullmatch(digest) is None:
            raise inconsistent(f"the sha256 of {name} is none", digest, "64 digits of 0-9 and a-f")
    plans = {} if manifest.plans is None else manifest.plans.stages
    stage_files = [(entry.name, entry.file, f"{entry.name}.onnx") for entry in manifest.stages]
    stage_files += [(entry.name, entry.cpu, f"{entry.name}.cpu.onnx") for entry in manifest.stages if entry.cpu]
    stage_files += [
        (entry.name, entry.cpu_signed, f"{entry.name}.vnni.onnx") for entry in manifest.stages if entry.cpu_signed
    ]
    stage_files += [(name, entry.file, f"{name}.plan") for name, entry in sorted(plans.items())]
    unlisted = [stage for stage, path, _ in stage_files if path not in manifest.files]
    if unlisted:
        raise EngineError(
            "manifest.json lists stages without a file", got=", ".join(unlisted), hint="page4d-export again"
        )
    for stage, path, own_name in stage_files:
        if pathlib.PurePosixPath(path).name != own_name:
            raise inconsistent(f"the file of {stage} is another stage's", path, own_name)
    golden = manifest.golden
    constants = (CONSTANTS,) if manifest.constants else ()
    used = constants if golden is None else (*constants, golden.inputs, golden.expected)
    for file in used:
        if file is not None and file not in manifest.files:
            raise inconsistent("a file that it uses is not listed", file, "every file with its sha256 in files")
    if golden is not None:
        _check_golden(manifest, golden)


def is_inside(name: str) -> bool:
    """Whether a name is a plain relative path: no part is empty, `.` or `..`."""
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _check_golden(manifest: Manifest, golden: Golden) -> None:
    """Where there are reference values there is a tolerance for each output, and for nothing else."""
    outputs = {f"{entry.name}/{spec.name}" for entry in manifest.stages for spec in entry.outputs}
    foreign = sorted(name for name in golden.tolerance if name not in outputs)
    lacking = sorted(name for name in outputs if name not in golden.tolerance) if golden.expected is not None else []
    if foreign or lacking:
        what = "its golden clip has other tolerances than the stages' outputs"
        raise inconsistent(what, ", ".join(sorted(golden.tolerance)) or "none", ", ".join(sorted(outputs)))
    for name, limit in sorted(golden.tolerance.items()):
        if not 0 <= limit <= _LARGEST_TOLERANCE:
            raise inconsistent(
                f"the tolerance of {name} is none", "less than 0" if limit < 0 else "more than 1e9", "0 to 1e9"
            )
