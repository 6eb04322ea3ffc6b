"""`--set NAME=VALUE`: fields of a model's config on the command line."""

from __future__ import annotations

from typing import Any

import msgspec

from page4d.errors import UsageError

_LISTS = ("sparse_layers", "global_layers", "keep_layers", "dilations", "order", "predictions")

_DIGITS = 4  # of a layer's number, and more than any has


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


def layers_named(text: str) -> tuple[int, ...] | None:
    """The layers of a list: `0,3-5`; None for `all`.

    Raises:
        UsageError: another text.
    """
    if text.strip() == "all":
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first, first)
        if not all(number.isascii() and number.isdigit() and len(number) < _DIGITS for number in numbers):
            raise UsageError(
                "--sparse-layers is no list of layers", got=repr(text[:100]), allowed="all, or numbers: 4,8-23"
            )
        layers += range(int(numbers[0]), int(numbers[1]) + 1)
    return tuple(layers)


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
