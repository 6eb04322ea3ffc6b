"""docs/cli.md is what scripts/cli_docs.py writes."""

import os
import pathlib
import re

from page4d.errors import ExitCode
from tests.support.modules import module_at

ROOT = pathlib.Path(__file__).parents[1]
cli_docs = module_at(ROOT / "scripts" / "cli_docs.py")


def test_the_page_is_what_the_script_writes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # a terminal's width changes nothing
    assert cli_docs.PAGE.read_text() == cli_docs.page(), "python scripts/cli_docs.py"


def test_the_page_does_not_depend_on_the_machine(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1234)
    assert "1234" not in cli_docs.page()


def test_every_command_has_a_section_and_every_option_a_row():
    sections = dict(
        re.findall(r"^## (page4d\S*(?: \S+)*)\n(.*?)(?=^## )", cli_docs.PAGE.read_text(), re.MULTILINE | re.DOTALL)
    )
    assert {"page4d-export", "page4d-run", "page4d verify", "page4d doctor", "page4d plugins build"} <= set(sections)
    assert "| `-o`, `--out` `FOLDER` |" in sections["page4d-run"] and "`--fp16`" in sections["page4d-export"]
    for command in cli_docs.commands():
        if not command.subcommands:
            assert all(f"`{flag}`" in sections[command.name] for option in command.options for flag in option.flags)


def test_every_exit_code_is_explained():
    table = cli_docs.PAGE.read_text().partition("## Exit codes")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(ExitCode)
