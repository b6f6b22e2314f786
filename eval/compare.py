"""Compare two runs on the same images, image by image.

Pairing the scores cancels what makes an image hard for both models, so the standard error of the
difference is far below that of either mean.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.command import run
from eval.comparison import compare, to_text
from eval.discovery import check_output
from eval.errors import ResultError
from eval.files import at_home, emit
from eval.text import say


@dataclass(frozen=True)
class Config:
    """Flags of `python -m eval.compare`."""

    run_a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_A")]
    """Run directory with result.json and nll.npy, or a result file next to its scores."""
    run_b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_B")]
    """Another one, scored on the same images."""
    num: int = 8
    """Number of images to show for each run, those on which it gains most."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """HTML page to write, with the pictures of both runs (default: none)."""


def show(config: Config) -> int:
    """Print the comparison, write its page, and return the exit code."""
    if config.num < 1:
        raise ResultError(f"expected --num of at least 1, got {config.num}")
    runs = at_home(config.run_a), at_home(config.run_b)
    check_output(config.out, runs)
    comparison = compare(*runs)
    say(to_text(comparison, config.num))
    if config.out is not None:
        from eval import pages  # matplotlib and jinja2 take half a second to import

        folders = [run if run.is_dir() else run.parent for run in runs]
        # images.npy goes with result.json; another result may be of another split.
        own = all(run.is_dir() or run.name == "result.json" for run in runs)
        text = pages.comparison(comparison, folders, config.num, show_images=own)
        emit(text, config.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run(Config, show, "compare", __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
