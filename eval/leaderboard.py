"""Rank results next to the literature's, comparing only what can be compared.

Rows come from run directories, result files and the literature. The exit code is 0 if every file
was read, 1 if some were left out (each is named on stderr), 2 if there is no table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.command import run
from eval.discovery import check_output, discover, report_problems
from eval.errors import ResultError
from eval.files import at_home, emit, write_whole
from eval.ranking import Table, tables
from eval.tables import to_csv, to_json, to_markdown

MARKS = ("<!-- leaderboard -->", "<!-- /leaderboard -->")  # of `--into`


@dataclass(frozen=True)
class Config:
    """Flags of `python -m eval.leaderboard`."""

    paths: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[RUN ...]")
    ] = ()
    """Run directories, result files, or folders of either (none: the literature alone)."""
    data: str = ""
    """Data set to show, mnist with its static binarization (default: those of the runs)."""
    format: Literal["md", "html", "csv", "json"] = "md"
    """Output format: Markdown, a self-contained HTML page, CSV, or JSON."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write (default: the terminal)."""
    into: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md")] = None
    """Markdown file to update between its lines <!-- leaderboard --> and <!-- /leaderboard -->."""
    published: bool = True
    """Published results from the literature, in the tables."""


def render(boards: Sequence[Table], format: str) -> str:
    """Return the tables in one of the four formats."""
    if format == "html":
        from eval import pages  # matplotlib and jinja2 take half a second to import

        return pages.report(boards, title="Leaderboard")
    return {"md": to_markdown, "json": to_json, "csv": to_csv}[format](boards)


def insert(text: str, file: Path) -> None:
    """Replace the text between the two marks of a Markdown file.

    The new text gets the line ends of the file.

    Raises:
        ValueError: the file doesn't contain each mark once, in this order.
    """
    file = at_home(file)
    first, last = (mark.encode() for mark in MARKS)
    before, begin, rest = file.read_bytes().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in after:
        raise ValueError(
            f"expected one line {MARKS[0]} in {file} and after it one line {MARKS[1]}: "
            "add them where the leaderboard belongs"
        )
    lines = ["", "", *text.strip().splitlines(), "", ""]
    newline = b"\r\n" if rest.startswith(b"\r\n") else b"\n"
    content = newline.join(line.encode() for line in lines)
    write_whole(file, before + first + content + last + after)


def rank(config: Config) -> int:
    """Write the leaderboard and return the exit code."""
    if config.into and (config.out or config.format != "md"):
        raise ValueError("--into writes Markdown into a file: leave out --format and --out")
    check_output(config.out, config.paths)
    found, problems = discover(config.paths)
    report_problems(problems)
    if problems and not found:
        raise ResultError("none of the files contains a readable result")
    boards = tables(found, data=config.data, literature=None if config.published else ())
    if config.into is None:
        emit(render(boards, config.format), config.out)
    else:
        insert(to_markdown(boards), config.into)
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run(Config, rank, "leaderboard", __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
