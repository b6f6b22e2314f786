"""One self-contained HTML page about runs: `python -m eval.report RUNS… --out report.html`.

The leaderboard, and per run its curves, pictures, rate and distortion, importance-weighted bound,
latents, configuration, environment and command. Nothing is fetched, and everything that a run
wrote is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from eval.discovery import check_output, discover, report_problems
from eval.errors import ResultError
from eval.files import emit
from eval.ranking import tables
from eval.text import exit_code


@dataclass(frozen=True)
class Config:
    """Write one self-contained HTML page about runs."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, result files, or folders of either."""
    out: Path = Path("report.html")
    """The page to write."""
    title: str = "Report"
    """The page's title."""
    published: bool = True
    """Show the literature's results too."""


def report(config: Config) -> int:
    """Write the page; returns the exit code."""
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
    """Run the command; returns its exit code."""
    prog = "python -m eval.report"
    return exit_code(lambda: report(tyro.cli(Config, prog=prog, args=argv)))


if __name__ == "__main__":
    sys.exit(main())
