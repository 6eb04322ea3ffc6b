"""Writes docs/cli.md: every command and option, as the commands define them. Run it after a change of either."""

from __future__ import annotations

import inspect
import pathlib
import re
import sys
import textwrap
import typing
import unittest.mock
from collections.abc import Iterator

import typer
from typer.main import get_command

from page4d.errors import ExitCode

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "cli.md"

INTRODUCTION = """\
# Commands

*Written by `python scripts/cli_docs.py` from the commands themselves: edit their help texts, not this page.*

`page4d-export` and `page4d-run` are the two main commands. `page4d` has all commands under one name:
`page4d export` is `page4d-export`, `page4d run` is `page4d-run`.
Results go to stdout, everything else goes to stderr; `--json` prints one JSON document.
[output.md](output.md) says what `-o` may name.
"""

EXIT_CODES = {
    ExitCode.OK: "the command did what was asked",
    ExitCode.FAILURE: "a failure that no other code names: a full disk, some of several folders, a bug of this program",
    ExitCode.USAGE: "flags, frames, masks, cameras, a checkpoint or `-o` cannot be used as given",
    ExitCode.ACCURACY: "a stage departs from the reference by more than its tolerance, or a plan is not as asked",
    ExitCode.INCOMPATIBLE: "the engine folder is damaged, or is for another machine",
    ExitCode.MISSING_BACKEND: "a backend or an optional package is missing",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.HANGUP: "SIGHUP; the command cleaned up first",
    ExitCode.INTERRUPTED: "SIGINT (Ctrl-C); the command cleaned up first",
    ExitCode.BROKEN_PIPE: "nobody reads stdout any more",
    ExitCode.TERMINATED: "SIGTERM; the command cleaned up first",
}


class Option(typing.NamedTuple):
    """A row of a command's table."""

    panel: str
    flags: tuple[str, ...]
    """Empty for an argument."""
    value: str
    """What the flag takes, or the argument's name; empty for a flag without a value."""
    default: str
    meaning: str


class Command(typing.NamedTuple):
    """A command with all its options."""

    name: str
    """As typed, e.g. `page4d bench chain`."""
    help: str
    options: tuple[Option, ...]
    subcommands: tuple[str, ...]
    """Names, for a command that only groups others."""


def applications() -> dict[str, typer.Typer]:
    """The installed commands by name: what each entry point would start."""
    from page4d_engines import cli
    from page4d_export import main

    started: list[typer.Typer] = []
    with unittest.mock.patch.object(cli, "start", started.append):
        for entry_point in (main.export, cli.main, main.main):
            entry_point()
    return dict(zip(("page4d-export", "page4d-run", "page4d"), started, strict=True))


def commands() -> Iterator[Command]:
    """Every command once: `page4d export` and `page4d run` are left to their own names."""
    for name, application in applications().items():
        for command in _walk(name, get_command(application)):
            if command.name not in ("page4d export", "page4d run"):
                yield command


def _walk(name: str, command: typing.Any) -> Iterator[Command]:
    subcommands = getattr(command, "commands", {})
    help_text = inspect.cleandoc(command.help or "").split("\f")[0].strip()
    yield Command(name, help_text, () if subcommands else tuple(_options(command)), tuple(subcommands))
    for subcommand_name, subcommand in subcommands.items():
        yield from _walk(f"{name} {subcommand_name}", subcommand)


def _options(command: typing.Any) -> Iterator[Option]:
    types = typing.get_type_hints(inspect.unwrap(command.callback))
    arguments_first = sorted(command.params, key=lambda parameter: parameter.param_type_name != "argument")
    for parameter in arguments_first:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        is_argument = parameter.param_type_name == "argument"
        yield Option(
            panel=getattr(parameter, "rich_help_panel", None) or "",
            flags=() if is_argument else (*parameter.opts, *parameter.secondary_opts),
            value=_value(parameter, types[parameter.name], is_argument),
            default=_default(parameter),
            meaning=(parameter.help or "").strip(),
        )


def _value(parameter: typing.Any, annotation: typing.Any, is_argument: bool) -> str:
    if is_argument:
        return str(parameter.metavar or parameter.name.upper())
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    for choice in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(choice) is typing.Literal:
            return "|".join(typing.get_args(choice))
    alternatives = [kind for kind in typing.get_args(annotation) if kind is not type(None)] or [annotation]
    kind = alternatives[0]
    if typing.get_origin(kind) is list or typing.get_origin(annotation) is list:
        kind = next(iter(typing.get_args(kind)), kind)
    names = {int: "INTEGER", float: "NUMBER", str: "TEXT", pathlib.Path: "PATH"}
    if kind in names:
        return names[kind] + _range(parameter)
    return "|".join(str(member.value) for member in kind)  # an enum


def _range(parameter: typing.Any) -> str:
    """The bounds of a numeric option, as in `0..5` or `1..`."""
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    return "" if low is None and high is None else f" {'' if low is None else low}..{'' if high is None else high}"


def _default(parameter: typing.Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default == () or parameter.show_default is False:
        return ""
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    return f"`{getattr(default, 'value', default)}`"


def page() -> str:
    """The whole of docs/cli.md."""
    listed = list(commands())
    parts = [INTRODUCTION, _index(listed)]
    parts += [_section(command) for command in listed if not command.subcommands]
    parts.append(_exit_codes())
    return "\n".join(parts)


def _summary(command: Command) -> str:
    return " ".join(command.help.split("\n\n")[0].split())


def _index(listed: list[Command]) -> str:
    rows = [
        f"| [`{command.name}`](#{command.name.replace(' ', '-')}) | {_plain(_summary(command))} |"
        for command in listed
        if not command.subcommands
    ]
    return "\n".join(["| command | does |", "|---|---|", *rows, ""])


def _section(command: Command) -> str:
    arguments = [
        option.value if option.default == "required" else f"[{option.value}]"
        for option in command.options
        if not option.flags
    ]
    lines = [
        f"## {command.name}",
        "",
        f"`{' '.join([command.name, *arguments, '[OPTIONS]'])}`",
        "",
        _paragraphs(command.help),
        "",
    ]
    panels = dict.fromkeys(option.panel for option in command.options)
    for panel in panels:
        rows = [_row(option) for option in command.options if option.panel == panel]
        title = [f"**{panel or 'General'}**", ""] if len(panels) > 1 else []
        lines += [*title, "| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    return "\n\n".join(
        textwrap.fill(_plain(paragraph), 120, break_on_hyphens=False) for paragraph in text.split("\n\n")
    )


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    value = option.value.replace("|", "\\|")
    name = " ".join(filter(None, [flags, f"`{value}`" if value else ""]))
    return f"| {name} | {option.default} | {_plain(option.meaning)} |"


def _plain(text: str) -> str:
    """A help text as Markdown that shows it as it is: `<camera>` is no HTML, `T*V` no emphasis; code spans stay."""
    spans = text.split("`")
    return "`".join(re.sub(r"[<*|]", r"\\\g<0>", span) if index % 2 == 0 else span for index, span in enumerate(spans))


def _exit_codes() -> str:
    rows = [f"| {code.value} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    assert list(EXIT_CODES) == list(ExitCode), "an exit code has no meaning here"
    return "\n".join(["## Exit codes", "", "| exit code | means |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
