"""`--set NAME=VALUE`: fields of a model's config on the command line."""

from __future__ import annotations

from typing import Any

import msgspec

from page4d.errors import UsageError

_LISTS = ("global_layers", "keep_layers", "dilations", "order", "predictions")


def overrides(options: list[str]) -> dict[str, Any]:
    """`--set name=value` as config fields: JSON where it reads as JSON, a list for `0,3`, else the text."""
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise UsageError("--set wants NAME=VALUE", got=option, hint="--set global_strategy=memory")
        is_list = not text.startswith("[") and ("," in text or name in _LISTS)
        is_list = is_list and text not in ("true", "false")  # predictions takes these as well
        if name == "mask_head":  # its values are strings that look like numbers
            values[name] = text
        elif is_list:
            values[name] = [_value(item) for item in text.split(",") if item]
        else:
            values[name] = _value(text)
    return values


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
