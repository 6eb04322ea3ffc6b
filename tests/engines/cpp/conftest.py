"""What is built once for the tests of C++, from the installed runtime."""

import pathlib

import pytest

from tests.support.cpp.cmake_builds import build, run
from tests.support.exports import making

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="session")
def installed(cpp, shared):
    """The prefix that the sanitized runtime is installed to."""
    with making(shared / "cpp-installed") as first:
        if first:
            run("cmake", "--install", cpp, "--prefix", shared / "cpp-installed" / "prefix")
    return shared / "cpp-installed" / "prefix"


@pytest.fixture(scope="session")
def ros2_parts(installed, made, shared):
    """The build folder of the ROS 2 example's parts that need no ROS, and of their tests; with sanitizers."""
    flags = "-DCMAKE_CXX_FLAGS=-Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
    engines = ";".join(str(made(variant).folder) for variant in ("default", "vggt", "pi3"))
    options = ["-DPAGE4D_ROS_WITHOUT_ROS=ON", f"-DPAGE4D_ROS_TEST_ENGINES={engines}", flags]
    with making(shared / "ros2") as first:
        if first:
            package = ROOT / "examples" / "ros2"
            build(package, shared / "ros2" / "build", f"-DCMAKE_PREFIX_PATH={installed}", *options)
    return shared / "ros2" / "build"
