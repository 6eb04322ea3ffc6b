"""The engines: loaded from an engine folder and chained over buffers allocated once."""

from page4d_engines.backend import Backend
from page4d_engines.pipeline import Pipeline, Result

__all__ = ["Backend", "Pipeline", "Result"]
