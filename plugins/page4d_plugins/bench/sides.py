"""Implementations of a call: this project's two ways to its kernels, and the others that a GPU has."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from page4d.errors import UsageError
from page4d_plugins.bench.call import Call
from page4d_plugins.kernel_pack import Pack
from page4d_plugins.modes import Keys, Mode

Run = Callable[[], Tensor]
"""Computes one call, `[Z,A,n,D]`."""
Maker = Callable[[Call], Run]
"""Prepares one call; raises where that is not possible."""


def by_triton(call: Call) -> Run:
    """The op itself: Triton compiles and launches."""
    from page4d_plugins.attention import biased_attention, segment_attention

    tensors = call.tensors
    q, k, v, key_bias = tensors["q"], tensors["k"], tensors["v"], tensors.get("key_bias")
    if call.mode.keys is Keys.SEGMENTS:
        return lambda: segment_attention(
            q, k, v, key_bias, tensors["seg_ptr"], tensors["seg"], tensors.get("segment_bias")
        )
    epipolar = call.epipolar
    return lambda: biased_attention(q, k, v, key_bias, epipolar, call.rows)


class ByPack:
    """The pack's machine code, launched by the driver as a runtime without PyTorch would."""

    def __init__(self, call: Call, pack: Pack | None = None) -> None:
        """Load kernels; allocate output and workspace.

        Args:
            call: tensors on the current GPU.
            pack: the kernels; the package's own by default.

        Raises:
            UsageError: the tensors are on no GPU.
            MissingBackendError: no cuda-core, or no driver.
        """
        from page4d_plugins.driver import current_device
        from page4d_plugins.kernel_pack import shipped
        from page4d_plugins.launcher import Launcher

        q = call.tensors["q"]
        if not q.is_cuda:  # their addresses would be taken for the GPU's
            raise UsageError("the pack's kernels take tensors of a GPU", got=q.device)
        self.launcher = Launcher(call.shape, current_device(), pack or shipped())
        self.out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        self.workspace = torch.empty(max(1, self.launcher.workspace), dtype=torch.uint8, device=q.device)
        self._tensors = call.tensors | {"out": self.out, "workspace": self.workspace}  # kept: the addresses are theirs
        self.addresses = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}

    def __call__(self) -> Tensor:
        """Launch on the current stream; always the same output."""
        self.launcher(self.addresses, torch.cuda.current_stream().cuda_stream)
        return self.out

    def poison(self) -> None:
        """Fill output and workspace with NaN, so that what a launch leaves unwritten shows."""
        self.out.fill_(float("nan"))
        self.workspace.fill_(0xFF)


def sdpa(backend: str) -> Maker:
    """One backend of PyTorch's scaled_dot_product_attention.

    A key bias is a mask `[Z,1,1,m]`, spread over heads and queries by strides of 0.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind: SDPBackend = getattr(SDPBackend, backend)

    def make(call: Call) -> Run:
        q, k, v = (call.tensors[name] for name in "qkv")
        key_bias = call.tensors.get("key_bias")
        mask = None if key_bias is None else key_bias[:, None, None]

        def run() -> Tensor:
            with sdpa_kernel(kind):
                return F.scaled_dot_product_attention(q, k, v, mask)

        return run

    return make


def flex_attention(call: Call) -> Run:
    """PyTorch's FlexAttention, compiled, the key bias as its score_mod."""
    compiled = _flex()
    q, k, v, key_bias = (call.tensors[name] for name in ("q", "k", "v", "key_bias"))
    return lambda: compiled(q, k, v, key_bias)


@cache
def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention import flex_attention as flex

    def attend(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Any:
        return flex.flex_attention(q, k, v, score_mod=lambda score, z, head, query, key: score + key_bias[z, key])

    return torch.compile(attend, dynamic=False)


def flash_attn(call: Call) -> Run:
    """The flash-attn package: its third version where installed, else its second."""
    try:
        function = importlib.import_module("flash_attn_interface").flash_attn_func
    except ModuleNotFoundError:
        function = importlib.import_module("flash_attn").flash_attn_func
    q, k, v = (call.tensors[name].transpose(1, 2) for name in "qkv")  # [Z,n,A,D]

    def run() -> Tensor:
        result = function(q, k, v)
        out: Tensor = result[0] if isinstance(result, tuple) else result
        return out.transpose(1, 2)

    return run


OURS: dict[str, Maker] = {"ours, Triton": by_triton, "ours, pack": ByPack}
UNBIASED_SDPA = {
    "SDPA flash": "FLASH_ATTENTION",
    "SDPA cuDNN": "CUDNN_ATTENTION",
    "SDPA efficient": "EFFICIENT_ATTENTION",
}
"""Backends of PyTorch that take a call without bias."""
PEERS = (*UNBIASED_SDPA, "FlexAttention", "flash-attn")
"""All other implementations."""


def makers(call: Call, peers: tuple[str, ...] = PEERS) -> dict[str, Maker]:
    """Implementations that can compute a call, by name: ours, then the peers that have its mode."""
    known = dict(OURS)
    if call.mode is Mode.DENSE:
        known |= {name: sdpa(backend) for name, backend in UNBIASED_SDPA.items()} | {"flash-attn": flash_attn}
    elif call.mode is Mode.BIASED:
        known |= {"SDPA efficient": sdpa(UNBIASED_SDPA["SDPA efficient"]), "FlexAttention": flex_attention}
    return {name: maker for name, maker in known.items() if name in OURS or name in peers}


class Attempt:
    """Runs what may fail, and keeps why it did: `with attempt: ...` ends without an error."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._caught = warnings.catch_warnings(record=True)

    def __enter__(self) -> Attempt:
        self._warnings = self._caught.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._caught.__exit__(kind, error, trace)
        if isinstance(error, Exception):  # a foreign library's failure is a line of the report, whatever its type
            self.reason = reason_of(error, self._warnings or [])
        return self.reason is not None


def reason_of(error: Exception, caught: Sequence[warnings.WarningMessage] = ()) -> str:
    """The reason why something did not run, in a line; PyTorch says in warnings why none of its kernels fits."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    notes = [str(warning.message).splitlines()[0] for warning in caught if issubclass(warning.category, UserWarning)]
    return f"{type(error).__name__}: {'; '.join([first, *notes])}"[:300]
