"""The `config.json` that authors publish beside the weights: what a file's tensors do not say."""

from __future__ import annotations

import pathlib

from page4d.errors import UsageError
from page4d.system.json_file import read_json

CONFIG = "config.json"
_LONGEST = 100


def model_name_beside(path: pathlib.Path) -> str | None:
    """The `model_name` in the `config.json` beside a checkpoint: `da3metric-large`.

    Args:
        path: of the checkpoint's file or index, or of the folder that it lies in.

    Returns:
        None where there is no such file, where it is no JSON object, or where it names no model: it then says nothing
        of the checkpoint, which may be whole without it.
    """
    folder = path if path.is_dir() else path.parent
    try:
        content = read_json(folder / CONFIG)
    except UsageError:
        return None
    name = content.get("model_name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST:
        return None
    return name
