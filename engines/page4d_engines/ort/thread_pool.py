"""`ThreadPool`: the CPU threads that ONNX Runtime's sessions compute with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class ThreadPool:
    """Threads of each session, or of all sessions of the process together.

    Attributes:
        threads: how many.
        shared: whether all sessions of the process have the same ones.
    """

    threads: int
    shared: bool = False
    _of_process: ClassVar[ThreadPool | None] = None

    @classmethod
    def of(cls, threads: int | None = None, shared: bool = False) -> ThreadPool:
        """A pool; in a process that has a shared one always that: ONNX Runtime then takes no other.

        Args:
            threads: how many; None takes every CPU that the process may use.
            shared: one pool for every session, for a command, whose process is its own: ONNX Runtime sessions that
                anybody makes afterwards with default options are refused.

        Raises:
            MissingBackendError: ONNX Runtime is too old.
        """
        if cls._of_process is not None:
            return cls._of_process
        pool = cls(threads or available_threads(), shared)
        if shared:
            import onnxruntime

            from page4d_engines.ort.library import require_supported

            require_supported()
            onnxruntime.set_global_thread_pool_sizes(pool.threads, 1)
            ThreadPool._of_process = pool
        return pool

    def configure(self, options: onnxruntime.SessionOptions) -> None:
        """Let a session compute with these threads."""
        options.use_per_session_threads = not self.shared
        if not self.shared:
            options.intra_op_num_threads = self.threads


def available_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
