"""Write a self-contained HTML page about runs.

It shows the leaderboard and, for each run, curves, pictures, rate and distortion, the
importance-weighted bound, latents, configuration, environment and command. The page fetches
nothing, and everything that a run wrote is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.command import run
from eval.discovery import check_output, discover, report_problems
from eval.errors import ResultError
from eval.files import emit
from eval.ranking import tables


@dataclass(frozen=True)
class Config:
    """Flags of `python -m eval.report`."""

    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories, result files, or folders of either."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")] = Path("report.html")
    """HTML page to write."""
    title: str = "Report"
    """Title of the page."""
    published: bool = True
    """Published results from the literature, in the tables."""


def report(config: Config) -> int:
    """Write the page and return the exit code."""
    from eval import pages, sections  # matplotlib and jinja2 take half a second to import

    if not config.paths:
        raise ResultError("name at least one run directory or result file")
    check_output(config.out, config.paths)
    found, problems = discover(config.paths)
    if not found:
        raise ResultError("; ".join(problems))
    shown, damaged = sections.gather(found)
    problems += damaged
    report_problems(problems)
    boards = tables(found, literature=None if config.published else ())
    emit(pages.report(boards, title=config.title, runs=found, shown=shown), config.out)
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run(Config, report, "report", __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
