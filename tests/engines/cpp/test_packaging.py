"""How the C++ runtime comes into a program: versions, components, pkg-config, its sources, presets."""

import json
import os
import pathlib
import re
import shutil

import pytest

from tests.support.cpp.cmake_builds import SANITIZED, build, run

ROOT = pathlib.Path(__file__).parents[3]
SOURCE = ROOT / "engines" / "cpp"
VERSION = re.search(r'^version = "(\d+\.\d+)(\.\d+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
PROGRAM = """
#include <page4d/page4d.h>
#include <stdio.h>

int main(void) {
  page4d_pipeline* pipeline = NULL;
  int code = page4d_load("/nowhere", NULL, &pipeline);
  printf("%s %s %d %s", PAGE4D_VERSION, page4d_version(), code, page4d_last_error());
  return 0;
}
"""


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_the_library_has_the_packages_version(installed):
    """Programs linked with another minor version, whose interface may differ, do not load this one."""
    library = installed / "lib" / "libpage4d_runtime.so"
    assert library.resolve().name == f"libpage4d_runtime.so.{VERSION[1]}{VERSION[2]}"
    assert f"[libpage4d_runtime.so.{VERSION[1]}]" in run("readelf", "--dynamic", library)
    package = installed / "lib" / "cmake" / "page4d" / "page4d-config-version.cmake"
    assert f'PACKAGE_VERSION "{VERSION[1]}{VERSION[2]}"' in package.read_text()


def test_it_installs_in_two_components(cpp, installed, tmp_path):
    """One for machines that run programs, one in addition for those that build them."""
    for component in ("runtime", "development"):
        run("cmake", "--install", cpp, "--component", f"page4d_{component}", "--prefix", tmp_path / component)
    library = f"lib/libpage4d_runtime.so.{VERSION[1]}"
    licences = {"share/doc/page4d/LICENSE", "share/doc/page4d/NOTICE"}
    assert files(tmp_path / "runtime") == {library, library + VERSION[2], *licences}
    development = files(tmp_path / "development")
    assert {"lib/libpage4d_runtime.so", "lib/pkgconfig/page4d.pc", "include/page4d/page4d.h"} < development
    assert files(tmp_path / "runtime") | development == files(installed)
    assert not files(tmp_path / "runtime") & development


def pkg_config(prefix, *options):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    return run("pkg-config", *options, "page4d", env=environment).split()


def check_c_program(prefix, folder):
    """Compile and run a program in C with what pkg-config says of a prefix."""
    (folder / "program.c").write_text(PROGRAM)
    flags = ["-Wall", "-Werror", "-fsanitize=address,undefined"]  # as the library was built
    command = ["cc", *flags, *pkg_config(prefix, "--cflags"), folder / "program.c", "-o", folder / "program"]
    run(*command, *pkg_config(prefix, "--libs"))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")}
    printed = run(folder / "program", env=environment)
    version = VERSION[1] + VERSION[2]
    assert printed.startswith(f"{version} {version} 4 there is no such engine folder\n")
    assert pkg_config(prefix, "--modversion") == [version]


def test_a_c_program_is_built_by_pkg_config_wherever_the_prefix_was_moved(installed, tmp_path):
    prefix = tmp_path / "moved"
    shutil.copytree(installed, prefix, symlinks=True)
    check_c_program(prefix, tmp_path)
    assert "libpage4d_runtime.so" in run("readelf", "--dynamic", tmp_path / "program")


def test_a_c_program_is_built_with_the_static_library(tmp_path):
    """pkg-config then names the C++ library, too."""
    parts = ["-DBUILD_SHARED_LIBS=OFF", "-DPAGE4D_PLUGINS=OFF", "-DPAGE4D_EXAMPLES=OFF", "-DBUILD_TESTING=OFF"]
    build(SOURCE, tmp_path / "build", *SANITIZED, *parts)
    run("cmake", "--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    assert (tmp_path / "prefix" / "lib" / "libpage4d_runtime.a").is_file()
    check_c_program(tmp_path / "prefix", tmp_path)
    assert "libpage4d_runtime.so" not in run("readelf", "--dynamic", tmp_path / "program")


ADDED = {
    "add_subdirectory": f"add_subdirectory({SOURCE} page4d)\n",
    "FetchContent": (
        "include(FetchContent)\n"
        f"FetchContent_Declare(page4d SOURCE_DIR {ROOT} SOURCE_SUBDIR engines/cpp)\n"
        "FetchContent_MakeAvailable(page4d)\n"
    ),
}


@pytest.mark.parametrize("way", ADDED)
def test_a_program_that_has_the_sources_builds_the_library_alone(way, tmp_path):
    """No tests, no examples, no build type, standard or kind of library that the program did not choose."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(robot CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
        "set(CMAKE_EXPORT_COMPILE_COMMANDS ON)\n"
        f"{ADDED[way]}"
        "add_executable(robot robot.cpp)\ntarget_link_libraries(robot page4d::runtime)\n"
        "file(WRITE ${CMAKE_BINARY_DIR}/state [${CMAKE_BUILD_TYPE}][${BUILD_SHARED_LIBS}][${BUILD_TESTING}])\n"
        f"get_property(targets DIRECTORY {SOURCE} PROPERTY BUILDSYSTEM_TARGETS)\n"
        'file(WRITE ${CMAKE_BINARY_DIR}/targets "${targets}")\n'
    )
    (tmp_path / "robot.cpp").write_text("#include <page4d/pipeline.h>\nint main() { page4d::version(); }\n")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    assert (tmp_path / "build" / "targets").read_text() == "page4d_objects;page4d_runtime"
    assert (tmp_path / "build" / "state").read_text() == "[][][]"
    commands = json.loads((tmp_path / "build" / "compile_commands.json").read_text())
    assert len(commands) > 40 and all("++20" in entry["command"] for entry in commands)


@pytest.mark.slow
def test_such_a_program_runs(tmp_path):
    """Under a newer standard than the library's own."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(robot CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
        f"{ADDED['FetchContent']}add_executable(robot robot.cpp)\ntarget_link_libraries(robot page4d::runtime)\n"
    )
    source = "#include <page4d/pipeline.h>\n#include <cstdio>\nint main() { std::puts(page4d::version()); }\n"
    (tmp_path / "robot.cpp").write_text(source)
    build(tmp_path, tmp_path / "build", "-DCMAKE_CXX_FLAGS=-Werror")
    assert run(tmp_path / "build" / "robot") == f"{VERSION[1]}{VERSION[2]}\n"


def test_every_target_has_the_projects_prefix():
    """A program that has the sources has targets of its own."""
    folders = [SOURCE, ROOT / "plugins" / "csrc", ROOT / "examples" / "ros2"]
    lists = [path.read_text() for folder in folders for path in folder.rglob("CMakeLists.txt")]
    names = {name for text in lists for name in re.findall(r"add_(?:executable|library|custom_target)\((\S+)", text)}
    assert len(names) > 15 and all(name.startswith(("page4d_", "page4d::")) for name in names), names


def test_presets_have_the_same_names_for_every_step():
    run("cmake", "--list-presets=all", cwd=SOURCE)
    presets = json.loads((SOURCE / "CMakePresets.json").read_text())
    for kind in ("configurePresets", "buildPresets", "testPresets"):
        assert [preset["name"] for preset in presets[kind]] == ["release", "debug", "asan", "tsan"]
