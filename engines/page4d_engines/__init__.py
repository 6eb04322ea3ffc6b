"""The engines: loaded from an engine folder and chained over buffers allocated once."""

from page4d_engines.pipeline import Backend, Pipeline, Result

__all__ = ["Backend", "Pipeline", "Result"]
