"""Launches a plan's kernels from the pack on a GPU: the driver through cuda-core, no torch, no Triton."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from page4d_plugins.driver import capability_of, checked, driver
from page4d_plugins.kernel_pack import PTX, Kernel, Pack
from page4d_plugins.launch_plan import Descriptor, Launch, Plan, Shape, make_plan, require_in_pack
from page4d_plugins.modes import Bytes, Dtype, Mode, Tile
from page4d_plugins.parameters import TENSOR_MAP, ParameterBlock


def plan_for(shape: Shape, capability: int, pack: Pack) -> Plan:
    """The plan of a call on a GPU of this compute capability, times ten, with the tiles of the pack's kernels.

    Raises:
        UsageError: sizes that the pack's kernels do not take, a GPU too old, a kernel missing.
    """

    def tile(mode: Mode) -> Tile:
        kernel = pack.kernel(f"attention_{mode.value}", shape.dtype, capability)
        return Tile(*msgspec.structs.astuple(kernel.entry.tile))

    plan = make_plan(shape, tile(shape.mode), tile(shape.mode.of_parts or shape.mode))
    require_in_pack(shape)
    return plan


class KernelLauncher:
    """Kernels of the pack, loaded on one GPU, with their parameters laid out; a call only launches them.

    A call neither allocates nor synchronises, so that a CUDA graph may capture it.
    """

    def __init__(self, launches: Sequence[Launch], dtype: Dtype | Bytes, device: int, pack: Pack) -> None:
        """Load what the launches need.

        Args:
            launches: in order.
            dtype: of the tensors.
            device: number of the GPU.
            pack: the kernels.

        Raises:
            UsageError: a GPU too old, a kernel missing.
            MissingBackendError: no cuda-core, or no driver.
        """
        capability = capability_of(device)
        self._dtype = dtype
        self._launches = []
        for launch in launches:
            kernel = pack.kernel(launch.kernel, dtype, capability)
            block = ParameterBlock(kernel.entry.parameters, launch.values)
            self._launches.append((launch.grid, _loaded(kernel, device), kernel.entry, block))

    def __call__(self, addresses: Mapping[str, int], stream: int) -> None:
        """Launch.

        Args:
            addresses: of the tensors on the GPU, by their names in the launches.
            stream: handle of a CUDA stream.
        """
        for grid, function, entry, block in self._launches:
            block.point(addresses, self._encode)
            checked(
                driver().cuLaunchKernel(function, *grid, entry.threads, 1, 1, entry.shared, stream, block.address, 0)
            )

    def _encode(self, descriptor: Descriptor, address: int) -> bytes:
        """A tensor map: the box is a tile of one head, its rows in 128-byte swizzle, zeros beyond the tensor."""
        api = driver()
        types = api.CUtensorMapDataType
        is_float16 = self._dtype is Dtype.FLOAT16
        kind = types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16 if is_float16 else types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
        sizes = [api.cuuint64_t(size) for size in reversed(descriptor.shape)]
        strides = [api.cuuint64_t(2 * stride) for stride in reversed(descriptor.strides[:3])]
        box = [api.cuuint32_t(size) for size in (descriptor.shape[3], descriptor.keys, 1, 1)]
        ones = [api.cuuint32_t(1)] * 4
        tensor_map = checked(
            api.cuTensorMapEncodeTiled(
                kind,
                4,
                address,
                sizes,
                strides,
                box,
                ones,
                api.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                api.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
                api.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                api.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        )
        return ctypes.string_at(tensor_map.getPtr(), TENSOR_MAP)


class Launcher(KernelLauncher):
    """The kernels of one call of attention.

    Its addresses are those of the op's inputs by name, `out`, and `workspace` (at least `self.workspace` bytes,
    256-aligned).
    """

    def __init__(self, shape: Shape, device: int, pack: Pack) -> None:
        """Load what the call needs.

        Args:
            shape: of the call.
            device: number of the GPU.
            pack: the kernels.

        Raises:
            UsageError: sizes that the kernels do not take, a GPU too old, a kernel missing.
            MissingBackendError: no cuda-core, or no driver.
        """
        self.plan = plan_for(shape, capability_of(device), pack)
        self.workspace = self.plan.workspace
        super().__init__(self.plan.launches, shape.dtype, device, pack)


_functions: dict[tuple[int, str], tuple[Any, Any]] = {}
"""Loaded code and its kernel, by GPU and path in the pack: loaded once per process."""


def _loaded(kernel: Kernel, device: int) -> Any:
    """The kernel's handle for `cuLaunchKernel`, with its shared memory allowed."""
    from cuda.core import ObjectCode

    entry = kernel.entry
    key = (device, entry.path)
    if key not in _functions:
        code = ObjectCode.from_ptx(kernel.code) if entry.chip == PTX else ObjectCode.from_cubin(kernel.code)
        loaded = code.get_kernel(entry.entry)
        api = driver()
        shared = api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        checked(api.cuKernelSetAttribute(shared, entry.shared, loaded.handle, device))
        function = checked(api.cuKernelGetFunction(loaded.handle))
        if hasattr(api, "cuFuncLoad"):  # else the first launch would load it, perhaps while a graph is captured
            checked(api.cuFuncLoad(function))
        _functions[key] = (code, function)
    return _functions[key][1]
