"""The kernel pack: every kernel as machine code for every GPU architecture, with its parameters, in one file.

A `.tar.xz` of `sm_<chip>/<kernel>_<type>.cubin` and `ptx/<kernel>_<type>.ptx` (for architectures without machine code
in the pack), a `.json` beside each (`Entry`), and `pack.json` (`Header`). Equal content gives equal bytes.
"""

from __future__ import annotations

import io
import lzma
import pathlib
import tarfile
from collections.abc import Mapping
from functools import cache

import msgspec

from page4d.errors import UsageError
from page4d.files import OutputKind
from page4d_plugins.modes import CHIPS, FALLBACK, Bytes, Dtype, chip_for

PTX = "ptx"
"""Folder of the code that the driver compiles."""
HEADER = "pack.json"
SUFFIX = ".tar.xz"
SHIPPED = pathlib.Path(__file__).with_name(f"kernels{SUFFIX}")
"""This package's own pack."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a kernel, in order, as the machine code's own table has it."""

    name: str
    """As in `attention_kernel.py`; parts of a descriptor as `KD`, `KD.shape0` .., `KD.stride0` ..; scratch pointers,
    always null, are empty."""
    offset: int
    size: int
    """Bytes: 4 (int32, float32), 8 (int64, pointer), 128 (tensor map)."""
    floating: bool


class TileSize(msgspec.Struct, frozen=True):
    """As `modes.Tile`."""

    queries: int
    keys: int
    warps: int
    stages: int
    descriptors: bool


class Entry(msgspec.Struct, frozen=True):
    """One kernel for one GPU architecture."""

    kernel: str
    """`attention_<mode>`, `prepare`, `merge`, or the name of a `RowKernel` or a `PixelKernel`."""
    dtype: str
    """fp16 or bf16; of a `PixelKernel` u8."""
    chip: str
    """sm_<chip>, or ptx."""
    entry: str
    """Symbol of the kernel in the code."""
    tile: TileSize
    threads: int
    shared: int
    """Bytes of dynamic shared memory."""
    registers: int
    """Of a thread; 0 for PTX."""
    spills: int
    """Bytes of local memory of a thread; 0 for PTX."""
    parameters: list[Parameter]

    @property
    def name(self) -> str:
        """Without the architecture."""
        return f"{self.kernel}_{self.dtype}"

    @property
    def path(self) -> str:
        """Of the kernel's code within a pack."""
        return f"{self.chip}/{self.name}.{'ptx' if self.chip == PTX else 'cubin'}"


class Header(msgspec.Struct, frozen=True):
    """The source and the compilers of a pack."""

    source: str
    """sha256 of the files that decide the kernels."""
    triton: str
    ptxas: str


class Kernel(msgspec.Struct, frozen=True):
    """An entry with its code."""

    entry: Entry
    code: bytes


class Pack:
    """A pack in memory."""

    def __init__(self, header: Header, kernels: Mapping[str, Kernel]) -> None:
        self.header, self.kernels = header, dict(kernels)

    @classmethod
    def read(cls, path: pathlib.Path = SHIPPED) -> Pack:
        """From a file.

        Raises:
            UsageError: no file, or not a pack.
        """
        try:
            with tarfile.open(path, "r:xz") as archive:
                files = {member.name: _content(archive, member) for member in archive}
            header = msgspec.json.decode(files.pop(HEADER), type=Header)
            kernels = {}
            for name in [name for name in files if name.endswith(".json")]:
                entry = msgspec.json.decode(files[name], type=Entry)
                kernels[entry.path] = Kernel(entry, files[entry.path])
        except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, KeyError, msgspec.DecodeError) as error:
            raise UsageError(
                "the kernel pack cannot be read", got=f"{path} ({error})", hint="page4d plugins build"
            ) from None
        return cls(header, kernels)

    def content(self) -> bytes:
        """As a file: equal packs give equal bytes."""
        return lzma.compress(self._tar(), preset=9 | lzma.PRESET_EXTREME)

    def write(self, path: pathlib.Path) -> None:
        """To a file."""
        path.write_bytes(self.content())

    def unpack(self, folder: pathlib.Path) -> None:
        """Every file of it into a folder."""
        for name, content in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def files(self) -> dict[str, bytes]:
        """Content by path."""
        files = {HEADER: _json(self.header)}
        for path in sorted(self.kernels):
            kernel = self.kernels[path]
            files[path] = kernel.code
            files[str(pathlib.PurePosixPath(path).with_suffix(".json"))] = _json(kernel.entry)
        return files

    def kernel(self, name: str, dtype: Dtype | Bytes, capability: int) -> Kernel:
        """The kernel that serves a GPU.

        Args:
            name: as `Entry.kernel`.
            dtype: of q, or of images.
            capability: compute capability times ten.

        Raises:
            UsageError: the GPU is too old, or the pack lacks the kernel.
        """
        chip = chip_for(capability)
        cubin, ptx = f"sm_{chip}/{name}_{dtype.value}.cubin", f"{PTX}/{name}_{dtype.value}.ptx"
        kernel = (self.kernels.get(cubin) if chip == capability else None) or self.kernels.get(ptx)
        if kernel is None:
            raise UsageError(
                "the kernel pack lacks a kernel",
                got=f"{name}_{dtype.value} for sm_{capability}",
                hint="page4d plugins build",
            )
        return kernel

    def _tar(self) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            # one kernel's code for all architectures side by side: xz compresses what they share
            for name, content in sorted(self.files().items(), key=lambda item: _tar_order(item[0])):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()


def _tar_order(path: str) -> tuple[str, str, str]:
    return path.rpartition(".")[2], path.rpartition("/")[2], path


@cache
def shipped() -> Pack:
    """The package's own pack, read once."""
    return Pack.read()


def targets() -> list[str]:
    """Folders of a full pack."""
    return [f"sm_{chip}" for chip in CHIPS] + [PTX]


def tile_chip(target: str) -> int:
    """The architecture whose tiles a target uses."""
    return FALLBACK if target == PTX else int(target.removeprefix("sm_"))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} is no file")
    return file.read()


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _unpacked(folder: pathlib.Path) -> list[str] | None:
    """The files of an unpacked pack; None where pack.json is no header of a pack."""
    try:
        msgspec.json.decode((folder / HEADER).read_bytes(), type=Header)
        files: list[str] = []
        for record in folder.glob("*/*.json"):
            files += [record.relative_to(folder).as_posix(), msgspec.json.decode(record.read_bytes(), type=Entry).path]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return files


KERNELS = OutputKind("a folder of kernels", HEADER, _unpacked)
