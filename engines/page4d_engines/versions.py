"""Versions of packages that page4d was tried with, and what to say of others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from page4d.errors import MissingBackendError


@dataclass(frozen=True)
class Tried:
    """The ends of what was tried."""

    lowest: str
    """What pyproject.toml asks for: older versions fail, or compute something else."""
    newest: str
    """Newer ones are taken, and doctor says so; where a later part of the number is missing, all of them count as
    tried."""

    def too_old(self, installed: str) -> bool:
        """Whether a version is older than the lowest."""
        return _release(installed) < _release(self.lowest)

    def too_new(self, installed: str) -> bool:
        """Whether a version is newer than any that was tried."""
        newest = _release(self.newest)
        return _release(installed)[: len(newest)] > newest

    def remark(self, installed: str) -> str | None:
        """What to say of an installed version; None where it is among those tried."""
        if self.too_old(installed):
            return f"too old, {self.lowest} is needed"
        return f"newer than {self.newest}, the newest tried" if self.too_new(installed) else None


TRIED = {
    "numpy": Tried("1.26", "2.5"),
    "ml-dtypes": Tried("0.5", "0.6"),
    "msgspec": Tried("0.19", "0.22"),
    "safetensors": Tried("0.5", "0.8"),
    "pillow": Tried("10.4", "13.0"),
    "onnx": Tried("1.19", "1.23"),
    "onnxruntime": Tried("1.23", "1.32"),
    "openvino": Tried("2026.4", "2026.4"),
    "typer": Tried("0.26", "0.29"),
    "rich": Tried("13.8", "15.0"),
    "jinja2": Tried("3.1.2", "3.1"),
    "torch": Tried("2.13", "2.13"),
    "onnxscript": Tried("0.7.2", "0.7.2"),
    "onnx-ir": Tried("0.1.16", "1.1"),
    "triton": Tried("3.6", "3.6"),
    "cuda-core": Tried("1.0", "1.2"),
    "cuda-bindings": Tried("12.8", "13.5"),
    "av": Tried("15", "18"),
    "huggingface-hub": Tried("1.22", "2.4"),
}
"""By the package's name; the lowest is a copy of pyproject.toml's, and tests compare them."""


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; the rest describes the build."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def require(package: str, installed: str, suffix: str = "") -> None:
    """Refuse a package that is older than any that works: pip does not see it where a build has another name.

    Args:
        package: of `TRIED`.
        installed: its version.
        suffix: of the name under which it is installed, as in `onnxruntime-gpu`.

    Raises:
        MissingBackendError: it is too old.
    """
    tried = TRIED[package]
    if tried.too_old(installed):
        hint = f'pip install "{package}{suffix}>={tried.lowest}"'
        raise MissingBackendError(
            f"{package}{suffix} is too old", got=installed, allowed=f"{tried.lowest} and newer", hint=hint
        )
