"""The command line that is running."""

from __future__ import annotations

import shlex
import sys


def command(*more: str) -> str:
    """Return the command line as one would type it, with more words at its end."""
    return shlex.join(["python", *sys.orig_argv[1:], *more])
