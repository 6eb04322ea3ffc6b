"""The ROS 2 example without ROS: files that have to agree. Its parts without ROS are built and run in test_cpp.py."""

import ast
import pathlib
import re
import xml.etree.ElementTree as ET

import yaml

ROOT = pathlib.Path(__file__).parents[4]
PACKAGE = ROOT / "examples" / "ros2"
NODE = PACKAGE / "src" / "rig_node.cpp"
OF_ROS = ("outputs", "parameters", "rig_node")  # files of the component
NOT_OF_ROS = {"Threads"}


def text(path):
    return (PACKAGE / path).read_text()


def declared(*kinds):
    return {entry.text for entry in ET.fromstring(text("package.xml")) if entry.tag in kinds}


def test_every_test_is_built_and_run_by_cmake():
    lists = text("CMakeLists.txt")
    looped = re.search(r"foreach\(name ([\w ]+)\)", lists).group(1).split()
    single = re.findall(r"add_executable\(page4d_ros_test_(\w+) ", lists)
    assert {*looped, *single} == {path.stem.removeprefix("test_") for path in (PACKAGE / "test").glob("test_*.cpp")}
    assert (
        set(re.findall(r"add_test\(NAME (\w+)", lists)) == set(single)
        and "add_test(NAME ${name} COMMAND page4d_ros_test_${name})" in lists
    )
    sources = set(re.findall(r"src/\w+\.cpp", lists))
    assert sources == {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "src").glob("*.cpp")}


def test_what_cmake_finds_is_declared():
    root = ET.fromstring(text("package.xml"))
    lists = text("CMakeLists.txt")
    assert root.attrib["format"] == "3" and root.findtext("export/build_type") == "ament_cmake"
    assert root.findtext("name") == re.search(r"project\((\w+)", lists).group(1) == "page4d_ros"
    packages = set(re.findall(r"find_package\((\w+)", lists))
    assert packages - NOT_OF_ROS == declared("depend", "build_depend", "buildtool_depend")
    component = "".join(text(f"include/page4d_ros/{name}.h") + text(f"src/{name}.cpp") for name in OF_ROS)
    included = {include.partition("/")[0] for include in re.findall(r'#include "([^"]+)"', component)}
    assert included - {"page4d_ros"} == declared("depend"), "every dependency is used, and the other way round"


def test_launch_file():
    tree = ast.parse(text("launch/rig.launch.py"))
    assert "generate_launch_description" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == declared("exec_depend")
    named = {
        node.arg: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)
    }
    lists = text("CMakeLists.txt")
    assert named["package"] == "page4d_ros" and f"EXECUTABLE {named['executable']} " in lists
    assert f'LifecycleNode("{named["name"]}"' in NODE.read_text()
    assert re.search(r"install\(DIRECTORY launch config ", lists) and (PACKAGE / "config" / "rig.yaml").is_file()
    assert '"config", "rig.yaml"' in text("launch/rig.launch.py")
    plugin = re.search(r"PLUGIN (\S+) ", lists).group(1)
    assert f"RCLCPP_COMPONENTS_REGISTER_NODE({plugin})" in NODE.read_text()


def test_parameters_are_the_same_everywhere():
    source = text("src/parameters.cpp")
    declared_types = dict(reversed(pair) for pair in re.findall(r'declare_parameter<(.+?)>\(\s*"(\w+)"', source))
    assert len(declared_types) == source.count("declare_parameter<") == 18
    described = re.findall(r'declare_parameter<[^;]*?(?:described|ranged)\(\s*"[^"]+"[^;]*;', source)
    assert len(described) == len(declared_types), "every parameter has a description"
    assert set(re.findall(r'get_parameter\("(\w+)"\)', source)) == set(declared_types), "every parameter is read"
    (parameters,) = (entry["ros__parameters"] for entry in yaml.safe_load(text("config/rig.yaml")).values())
    assert set(parameters) == set(declared_types)
    types = {"std::string": str, "int64_t": int, "double": float, "Names": list}
    assert {name: type(value) for name, value in parameters.items()} == {
        name: types[kind] for name, kind in declared_types.items()
    }
    table = text("README.md").partition("## Parameters")[2].partition("## Topics")[0]
    rows = re.findall(r"^\| (`.+?`) \|", table, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(declared_types)


def test_defaults_are_those_of_the_rig():
    (parameters,) = (entry["ros__parameters"] for entry in yaml.safe_load(text("config/rig.yaml")).values())
    header = (ROOT / "engines" / "cpp" / "include" / "page4d" / "rig.h").read_text()
    for name in ("stride", "tolerance", "patience", "frame_width", "frame_height"):
        default = float(re.search(rf"\b{name} = ([\d.]+)[;,]", header).group(1))
        shown = re.search(rf"^\| .*`{name}`.* \| ([\d.]+) \|", text("README.md"), re.M).group(1)
        assert float(parameters[name]) == default == float(shown), name


def test_topics_have_names_that_ros_allows():
    """A part of a topic's name may not begin with a digit."""
    source = text("src/outputs.cpp")
    assert '"~/camera_" + std::to_string(camera)' in source
    topics = re.findall(r'prefix \+ "/(\w+)"', source)
    assert len(topics) == 6
    for topic in topics:
        assert re.fullmatch(r"[a-z_]\w*", topic) and f"`~/camera_<i>/{topic}`" in text("README.md")
