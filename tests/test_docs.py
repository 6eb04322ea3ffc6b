"""The documentation names only files, commands and options that exist, and its lines can be read."""

import functools
import pathlib
import re
import subprocess

import pytest

from tests.support.modules import module_at

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ROOMS = ("page4d", "plugins", "engines", "export", "tests", "scripts", "examples", "docs")
BUILT_SUFFIXES = (".so", ".onnx", ".json")
CODE_SUFFIXES = (".py", ".cpp", ".h", ".sh", ".c", ".in", ".cmake")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@functools.cache
def repository_files():
    """Every tracked or new file, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(name for name in listed.stdout.splitlines() if (ROOT / name).exists())


@functools.cache
def all_commands():
    """Every command as scripts/cli_docs.py describes it."""
    return tuple(module_at(ROOT / "scripts" / "cli_docs.py").commands())


def command_groups():
    """Names that only stand before the name of a command, such as `page4d`."""
    return {command.name for command in all_commands() if command.subcommands}


@functools.cache
def command_flags():
    """The options of every command by its name."""
    flags = {
        command.name: {"--help", "-h"}.union(*(option.flags for option in command.options))
        for command in all_commands()
    }
    return flags | {"page4d export": flags["page4d-export"], "page4d run": flags["page4d-run"]}


@functools.cache
def script_flags():
    """Long options that the scripts, tools and examples of the repository read."""
    places = ("demo.sh", "test.sh", "scripts/", "examples/", "engines/cpp/examples/", "tests/")
    files = [
        ROOT / name
        for name in repository_files()
        if name.startswith(places) and name.endswith((".py", ".sh", ".cpp", ".h"))
    ]
    return {flag for file in files for flag in re.findall(r"--[a-z][a-z-]+", file.read_text())}


def without_code_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_lines(text):
    """Lines of shell blocks without comments, and all code spans."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", without_code_blocks(text))


def heading_anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert linked.is_relative_to(ROOT), f"{page.name} links outside the repository: {target}"
        if anchor:
            assert anchor in heading_anchors(linked.read_text()), f"{page.name} links to {target}"


@every_page
def test_files_that_are_named_exist(page):
    """Code spans that are paths of the repository, or names of source files."""
    files = repository_files()
    for span in re.findall(r"`([^`\n]+)`", without_code_blocks(page.read_text())):
        if not re.fullmatch(r"[\w./-]+", span):
            continue
        is_source = any(f"/{file}".endswith(f"/{span.removeprefix('./')}") for file in files)
        if span.split("/")[0] in ROOMS and "/" in span.rstrip("/") and not span.endswith(BUILT_SUFFIXES):
            assert (ROOT / span).exists() or is_source, f"{page.name} names {span}"
        if span.endswith(CODE_SUFFIXES):
            assert is_source, f"{page.name} names {span}"


def command_of(words):
    """The longest command that some words begin with, and None where they are another program's."""
    names = [" ".join(words[:count]) for count in (3, 2, 1)]
    return next((name for name in names if name in command_flags()), None)


@every_page
def test_options_that_are_named_exist(page):
    """Options of a command after its name; options alone of any command, script or example."""
    anywhere = set().union(*command_flags().values()) | script_flags()
    for line in code_lines(page.read_text()):
        words = line.split()
        flags = {re.match(r"--?[A-Za-z][\w-]*", word).group() for word in words if re.match(r"--?[A-Za-z]", word)}
        command = command_of(words)
        if command is not None:
            unknown = flags - command_flags()[command]
        elif words and words[0].startswith("--"):
            unknown = flags - anywhere
        else:
            unknown = set()  # another program's
        assert not unknown, f"{page.name}: {line}"


@every_page
def test_commands_that_are_named_exist(page):
    for line in code_lines(page.read_text()):
        words = line.split()
        command = command_of(words)
        following = words[len(command.split()) :] if command else []
        if command in command_groups() and following and not following[0].startswith("-"):
            raise AssertionError(f"{page.name}: {line}")


@every_page
def test_lines_are_short(page):
    """Prose at 120 columns, code at 140, table rows and pictures, which cannot be wrapped, at 200."""
    is_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        is_code ^= line.startswith("```")
        limit = 140 if is_code else 200 if line.startswith(("|", "![")) else 120
        assert len(line) <= limit, f"{page.name}:{number} has {len(line)} characters"


@every_page
def test_the_index_lists_every_page(page):
    index = (ROOT / "docs" / "README.md").read_text()
    assert page.name == "README.md" or f"]({page.relative_to(ROOT / 'docs')})" in index
