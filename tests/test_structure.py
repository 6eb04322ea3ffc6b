"""Packages and rooms import only what stands below them, files not in a circle; no folder is crowded."""

import ast
import collections
import functools
import graphlib
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"page4d": "page4d", "page4d_plugins": "plugins", "page4d_engines": "engines", "page4d_export": "export"}
PACKAGES = list(FOLDERS)
MOST_FILES = 14
CROWDED = [
    *("page4d", "plugins/page4d_plugins", "engines/page4d_engines", "export/page4d_export"),
    "engines/cpp/src",
    "tests",
    "docs",
]

# The rooms of each package from the ground up. A room is a folder or a file at the top; it may import those of its own
# floor and of the floors below. `.` is the package's own `__init__`.
FLOORS = {
    "page4d": [
        {"errors"},
        {"system"},
        {"layout", "config", "published", "precision", "ops", "cameras", "files", "manifest", "manifest_checks"}
        | {"accuracy"},
        {"network"},
        {"model", "attention"},
        {"checkpoints"},
        {"."},
    ],
    "page4d_plugins": [
        {"driver", "modes", "attention_kernel", "row_kernel"},
        {"launch_plan", "kernel_pack"},
        {"parameters", "row_launch", "node", "pixels"},
        {"compile", "launcher"},
        {"attention", "tensorrt"},
        {"bench"},
        {"."},
    ],
    "page4d_engines": [
        {"versions", "console", "options", "timing"},
        {"clip", "engine_folder", "stage_files"},
        {"runtime"},
        {"ort", "tensorrt", "openvino"},
        {"backend"},
        {"arguments", "pipeline"},
        {"results", "self_check", "doctor", "triton_server", "."},
        {"cli", "entry", "commands"},
    ],
    "page4d_export": [
        {"plan", "model_source", "sample_scene", "sample_clip"},
        {"stage", "stage_runner", "tracing"},
        {"quantize", "verify", "sparse_price"},
        {"exporter"},
        {"export_request", "."},
        {"bench"},
        {"commands"},
        {"main", "entry"},
    ],
}


@functools.cache
def modules():
    """Every module of the packages, by its dotted name."""
    paths = {}
    for package, folder in FOLDERS.items():
        root = ROOT if folder == package else ROOT / folder
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


@functools.cache
def imports():
    """What each module imports of the packages, anywhere in it: in a function or for the type checker, too."""
    return {name: frozenset(imported(path)) for name, path in modules().items()}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name in modules())


def package_of(module):
    return module.partition(".")[0]


def room_of(module):
    return module.split(".")[1] if "." in module else "."


def test_packages_import_those_below():
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if PACKAGES.index(package_of(other)) > PACKAGES.index(package_of(module))
    ]
    assert len(modules()) > 150 and not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_those_below(package):
    floors = {room: number for number, floor in enumerate(FLOORS[package]) for room in floor}
    rooms = {room_of(module) for module in modules() if package_of(module) == package}
    assert rooms == set(floors), "a room without a place in FLOORS, or a place without a room"
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if package_of(module) == package_of(other) == package and floors[room_of(other)] > floors[room_of(module)]
    ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    try:
        graphlib.TopologicalSorter(imports()).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]  # each is imported by the next
        raise AssertionError("a circle: " + " imports ".join(reversed(circle))) from None


@pytest.mark.parametrize("folder", CROWDED)
def test_no_folder_is_crowded(folder):
    files = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counts = collections.Counter(pathlib.PurePosixPath(file).parent for file in files.splitlines())
    assert counts and {str(place): count for place, count in counts.items() if count > MOST_FILES} == {}
