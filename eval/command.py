"""Skeleton of the commands: parse the flags, do the work, turn a user's error into one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from eval.text import complain

SCRIPT = "pixel-decoders"  # the console script, which runs these commands too
C = TypeVar("C")


def run(
    config: type[C], work: Callable[[C], int], name: str, about: str, argv: Sequence[str] | None
) -> int:
    """Parse a command's flags and do its work; return its exit code.

    Args:
        config: dataclass of the flags.
        work: function of the flags that returns the exit code.
        name: name of the command, for the usage line.
        about: description for `--help`.
        argv: words to parse; those of the command line if None.
    """
    script = Path(sys.argv[0]).name == SCRIPT
    prog = f"{SCRIPT} {name}" if script else f"python -m eval.{name}"
    return exit_code(lambda: work(tyro.cli(config, prog=prog, description=about, args=argv)))


def exit_code(work: Callable[[], int]) -> int:
    """Do a command's work and return its exit code, after one line about a user's error.

    The code is the work's own, 2 after an error, or 130 after Ctrl-C.
    """
    try:
        return work()
    except (ValueError, OSError, MemoryError) as error:
        complain("error", error if str(error) else "out of memory")
        return 2
    except KeyboardInterrupt:
        return 130
