"""Building C++ in tests: commands whose output is shown where they fail, and flags of builds for tests alone."""

import os
import shutil
import subprocess

UNOPTIMISED = "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"  # and without debug information: half the time
# AddressSanitizer sees what these look for; without them a third of the time of building
SANITIZED = "-DPAGE4D_SANITIZE=address", "-DCMAKE_CXX_FLAGS=-Werror -fno-sanitize=null,object-size,vptr"
CCACHE = {
    "CCACHE_BASEDIR": "/",  # every run of the tests has a build folder of another name
    "CCACHE_SLOPPINESS": "pch_defines,time_macros,include_file_mtime,include_file_ctime",  # as precompiled headers need
}


def run(*command, **options):
    """Standard output of a command that has to end well."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def fastest_tools():
    """Ninja and ccache, as far as they are installed."""
    if shutil.which("ninja"):
        yield "-GNinja"
    if shutil.which("ccache"):
        yield from ("-DCMAKE_C_COMPILER_LAUNCHER=ccache", "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")


def build(source, folder, *options, targets=()):
    """Configure and build a CMake project."""
    run("cmake", "-S", source, "-B", folder, *UNOPTIMISED, *fastest_tools(), *options)
    target_options = ["--target", *targets] if targets else []
    run("cmake", "--build", folder, "--parallel", "2", *target_options, env={**os.environ, **CCACHE})
