"""`report.html` of a batch: a row per folder of frames, with a link to its own report; needs no network.

The page is the template `overview.html.j2`; this file makes its values.
"""

from __future__ import annotations

import pathlib

from page4d.files import write_atomically
from page4d.system.plain_text import as_text, counted
from page4d_engines.results.batch.batch_summary import BatchSummary, FolderState
from page4d_engines.results.report import template
from page4d_engines.results.summary import REPORT, SUMMARY


def write_overview(folder: pathlib.Path, summary: BatchSummary) -> None:
    """Write the page, whole or not at all; its links are relative to the folder."""
    page = template("batch/overview.html.j2").render(
        summary=summary,
        result=described(summary),
        has_points=any(folder.points is not None for folder in summary.folders),
        report_file=REPORT,
        summary_file=SUMMARY,
    )
    write_atomically(folder / REPORT, as_text(page).encode())


def described(summary: BatchSummary) -> str:
    """How many folders are in which state: `5 folders: 3 done, 1 kept, 1 failed`."""
    counts = ((state, len(summary.of_state(state))) for state in FolderState)
    states = ", ".join(f"{count} {state}" for state, count in counts if count)
    return f"{counted(len(summary.folders), 'folder')}: {states}"
