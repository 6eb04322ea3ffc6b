"""TensorRT-RTX from PyPI: the module, ready for plugins."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
from types import ModuleType

from page4d.errors import MissingBackendError

_LIBRARY = "libtensorrt_rtx.so"
_INSTALL = 'pip install "page4d[rtx]", or ".[rtx]" in a checkout'


def load() -> ModuleType:
    """Import it. Building needs no GPU and no driver; running does.

    Raises:
        MissingBackendError: not installed, or installed where its library cannot be given the name that it looks for.
    """
    libraries = importlib.util.find_spec("tensorrt_rtx_libs")
    if libraries is None or libraries.origin is None:
        raise MissingBackendError("TensorRT-RTX is not installed", hint=_INSTALL)
    # with a plugin in the network the builder opens its own library by a name that the wheel lacks, and ends the
    # process without it
    link = pathlib.Path(libraries.origin).with_name(_LIBRARY)
    if not link.exists():
        (library,) = link.parent.glob(f"{_LIBRARY}.*")
        try:
            link.symlink_to(library.name)
        except FileExistsError:
            pass  # another process was faster
        except OSError as error:
            raise MissingBackendError(
                f"TensorRT-RTX looks for a file that its package lacks ({error.strerror})",
                hint=f"ln -s {library.name} {link}",
            ) from None
    try:
        return importlib.import_module("tensorrt_rtx_bindings")
    except ModuleNotFoundError:
        raise MissingBackendError("TensorRT-RTX's Python bindings are not installed", hint=_INSTALL) from None
