"""`CudaDevice`: memory, streams, events and graphs of one GPU, through cuda-core; no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from page4d.errors import OutOfMemoryError
from page4d_engines.runtime.gpu_memory import free_on_gpu
from page4d_plugins.driver import capability_of, checked, driver

_MIB = 1 << 20
# streams: what ran on one may use it once more when it is freed, in whatever order Python frees things
_OUTLIVING: list[Any] = []
_STAGING = 16 << 20  # bytes of page-locked memory through which constants go up


class CudaDevice:
    """This machine's first GPU, current on this thread.

    Attributes:
        number: of the GPU.
        stream: handle of the stream on which everything is computed.
        uploads: handle of a second one, for copies beside it.
    """

    def __init__(self) -> None:
        """Make it current.

        Raises:
            MissingBackendError: no cuda-core, or no driver.
        """
        self._api = driver()
        from cuda.core import Device, LegacyPinnedMemoryResource

        self.number = 0
        self._device = Device(self.number)
        self._device.set_current()
        self._streams = [self._device.create_stream() for _ in range(2)]
        _OUTLIVING.extend(self._streams)
        self.stream, self.uploads = (int(stream.handle) for stream in self._streams)
        self._pinned = LegacyPinnedMemoryResource()
        self._held: list[Any] = []
        self._staging: NDArray[np.uint8] | None = None

    @property
    def name(self) -> str:
        """As the driver has it."""
        return str(self._device.name)

    @property
    def capability(self) -> int:
        """Compute capability times ten."""
        return capability_of(self.number)

    def free(self) -> int:
        """Bytes of the GPU's memory that are free, as `free_on_gpu`."""
        return free_on_gpu(self.number)

    # ---- memory: held until this object is freed

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU, 256-aligned, zeroed.

        Raises:
            OutOfMemoryError: there is not so much memory.
        """
        try:
            buffer = self._device.allocate(max(size, 1), stream=self._streams[0])
        except Exception as error:  # cuda-core's own types
            if "OUT_OF_MEMORY" not in str(error):
                raise
            raise OutOfMemoryError(
                "the GPU has too little memory left",
                got=f"{size / _MIB:.1f} MiB more",
                allowed=f"{self.free() / _MIB:.1f} MiB free",
                hint="a smaller --T, --V, --height or --width",
            ) from None
        self._held.append(buffer)
        address = int(buffer.handle)
        checked(self._api.cuMemsetD8Async(address, 0, max(size, 1), self.stream))
        self.synchronize()
        return address

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A zeroed array in page-locked host memory, which it keeps; copies from and to it run beside other work."""
        size = int(np.prod(shape)) * dtype.itemsize
        buffer = self._pinned.allocate(max(size, 1))
        memory = (ctypes.c_uint8 * size).from_address(int(buffer.handle))
        memory.owner = buffer  # type: ignore[attr-defined]  # an array may outlive this object: results are handed out
        array = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        array[...] = 0
        return array

    def placed(self, content: NDArray[np.uint8]) -> int:
        """Address of a copy of some bytes `[n]` on the GPU, which is there when this returns.

        Raises:
            OutOfMemoryError: there is not so much memory.
        """
        address = self.allocate(content.size)
        if self._staging is None:
            self._staging = self.pinned((_STAGING,), np.dtype(np.uint8))
        for begin in range(0, content.size, _STAGING):
            part = content[begin : begin + _STAGING]
            self._staging[: part.size] = part
            self.upload(address + begin, self._staging[: part.size], self.stream)
            self.synchronize()
        return address

    # ---- what is put on a stream

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the GPU."""
        checked(self._api.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, stream))

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU into a contiguous host array."""
        checked(self._api.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream))

    def copy_rows(self, target: int, pitch: int, source: int, width: int, rows: int, stream: int) -> None:
        """Copy `rows` rows of `width` bytes: one after the other in the source, `pitch` bytes apart in the target."""
        kind = self._api.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy = self._api.CUDA_MEMCPY2D()
        copy.srcMemoryType, copy.srcDevice, copy.srcPitch = kind, source, width
        copy.dstMemoryType, copy.dstDevice, copy.dstPitch = kind, target, pitch
        copy.WidthInBytes, copy.Height = width, rows
        checked(self._api.cuMemcpy2DAsync(copy, stream))

    def event(self, timing: bool = False) -> Any:
        """An event; with `timing` one whose time can be asked for."""
        from cuda.core import EventOptions

        event = self._device.create_event(EventOptions(timing_enabled=timing))
        self._held.append(event)
        return event.handle

    def record(self, event: Any, stream: int) -> None:
        """Record an event."""
        checked(self._api.cuEventRecord(event, stream))

    def record_time(self, event: Any, stream: int, captured: bool) -> None:
        """Record an event whose time is read outside of a graph, which a capture must be told."""
        flags = self._api.CUevent_record_flags
        flag = flags.CU_EVENT_RECORD_EXTERNAL if captured else flags.CU_EVENT_RECORD_DEFAULT
        checked(self._api.cuEventRecordWithFlags(event, stream, int(flag)))

    def wait(self, stream: int, event: Any) -> None:
        """Let a stream wait for an event."""
        checked(self._api.cuStreamWaitEvent(stream, event, 0))

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two recorded events."""
        return float(checked(self._api.cuEventElapsedTime(begin, end))) / 1e3

    def synchronize(self) -> None:
        """Wait for everything on `stream`."""
        checked(self._api.cuStreamSynchronize(self.stream))

    # ---- graphs

    @contextmanager
    def capture(self) -> Iterator[list[Any]]:
        """Capture what the block puts on `stream`, and on streams that wait for it.

        After the block the list holds the graph, ready to be launched.
        """
        graphs: list[Any] = []
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked(self._api.cuStreamBeginCapture(self.stream, mode))
        try:
            yield graphs
        except BaseException:
            self._api.cuStreamEndCapture(self.stream)  # with an error, since the capture is broken
            raise
        graph = checked(self._api.cuStreamEndCapture(self.stream))
        graphs.append(checked(self._api.cuGraphInstantiate(graph, 0)))
        checked(self._api.cuGraphDestroy(graph))

    def launch(self, graph: Any) -> None:
        """Launch a graph on `stream`."""
        checked(self._api.cuGraphLaunch(graph, self.stream))
