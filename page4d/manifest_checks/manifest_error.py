"""The refusal of a manifest whose parts do not go together, worded alike by all checks."""

from __future__ import annotations

from page4d.errors import EngineError


def inconsistent(what: str, got: object, allowed: str) -> EngineError:
    """The error to raise: what does not go together, the value it has, what goes with the rest."""
    return EngineError(
        f"manifest.json does not go together: {what}", got=got, allowed=allowed, hint="page4d-export again"
    )
