"""Modules of files that lie on no import path."""

import importlib.util


def module_at(path):
    """The module of a Python file, executed anew."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
