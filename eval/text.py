"""Text from untrusted files, made safe for a terminal, a table or a spreadsheet."""

from __future__ import annotations

import sys
from typing import TextIO


def visible(text: str, keep: str = "") -> str:
    r"""Return text with unprintable characters escaped, except those in `keep`.

    >>> print(visible("a\x1b[2Jb\u202e"))
    a\x1b[2Jb\u202e
    """
    return "".join(
        mark if mark.isprintable() or mark in keep else mark.encode("unicode_escape").decode()
        for mark in text
    )


def spreadsheet_cell(value: object) -> object:
    """Return a CSV cell that no spreadsheet reads as a formula; numbers are unchanged.

    >>> spreadsheet_cell('=HYPERLINK("http://x")'), spreadsheet_cell(-1.5)
    ('\\'=HYPERLINK("http://x")', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = visible(value, keep="\n")
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def say(text: str, stream: TextIO | None = None) -> None:
    """Print to the terminal, with control characters and what it can't encode escaped."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    shown = visible(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=stream)


def complain(label: str, problem: object) -> None:
    """Print one line on stderr."""
    if isinstance(problem, OSError) and problem.filename is not None:
        problem = f"cannot use {problem.filename}: {problem.strerror}"
    say(f"{label}: {' '.join(str(problem).split())}", sys.stderr)
