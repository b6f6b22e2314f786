"""Two runs on the same images: `python -m eval.compare RUN_A RUN_B`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.comparison import compare, to_text
from eval.discovery import check_output
from eval.errors import ResultError
from eval.files import at_home, emit
from eval.text import exit_code, say


@dataclass(frozen=True)
class Config:
    """Compare two runs image by image."""

    run_a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_A")]
    """A run directory with result.json and nll.npy, or a result file with its scores beside it."""
    run_b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_B")]
    """Another, scored on the same images."""
    most: int = 8
    """How many of the images that they differ on most to show, each way."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Write a page with the pictures of both to this file too."""


def show(config: Config) -> int:
    """Print the comparison, and write its page; returns the exit code."""
    if config.most < 1:
        raise ResultError(f"--most must be at least 1, got {config.most}")
    runs = at_home(config.run_a), at_home(config.run_b)
    check_output(config.out, runs)
    comparison = compare(*runs)
    say(to_text(comparison, config.most))
    if config.out is not None:
        from eval import pages  # matplotlib and jinja2 take half a second to import

        folders = [run if run.is_dir() else run.parent for run in runs]
        # images.npy goes with result.json; another result may be of another split.
        own = all(run.is_dir() or run.name == "result.json" for run in runs)
        text = pages.comparison(comparison, folders, config.most, show_images=own)
        emit(text, config.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prog = "python -m eval.compare"
    return exit_code(lambda: show(tyro.cli(Config, prog=prog, args=argv)))


if __name__ == "__main__":
    sys.exit(main())
