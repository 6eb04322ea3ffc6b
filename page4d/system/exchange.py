"""What the operating system offers to replace a folder safely: exchanging two names at once, syncing, mount points."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import re
from concurrent.futures import ThreadPoolExecutor

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' fcntl.h and fs.h
_WRITERS = 16
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def exchange(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Swap what two names stand for, in one step; False where the file system has none (not Linux, network drives).

    Raises:
        OSError: as `os.rename` does.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(second))


def sync(folder: pathlib.Path) -> None:
    """Wait until everything in a folder is on the disk: after a rename, a power failure then leaves no empty files."""
    paths = [pathlib.Path(place, name) for place, _, names in os.walk(folder, topdown=False) for name in (*names, "")]
    with ThreadPoolExecutor(_WRITERS) as pool:  # file systems write what many wait for in one go
        list(pool.map(sync_path, paths))


def sync_path(path: pathlib.Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk; links are left alone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(handle)


def is_mount_point(folder: pathlib.Path) -> bool:
    """Whether something is mounted at a folder, a bind mount of the same disk included (a container's volume)."""
    if os.path.ismount(folder):
        return True
    try:
        lines = pathlib.Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return False
    mounted = {re.sub(rb"\\(\d{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines}
    return os.fsencode(os.path.realpath(folder)) in mounted
