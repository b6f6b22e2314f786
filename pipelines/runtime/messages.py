"""Messages to the user that never end a command, even if the terminal closes or a disk is full."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TextIO

from eval.text import visible


def say(message: str, *, end: str = "\n") -> None:
    """Print a message on standard error, if it can be written.

    Control characters in quoted names and files become escapes, so that they can't drive the
    terminal.
    """
    write(sys.stderr, visible(message, keep="\n\t") + end)


def warn(message: str) -> None:
    """Print a warning on standard error, if it can be written."""
    say(f"WARNING: {message}")


def show(text: str) -> None:
    """Print a command's findings on standard output, if it can be written."""
    write(sys.stdout, visible(text, keep="\n\t") + "\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write text to a stream and flush it; drop the text if that fails."""
    if stream is None:  # as under pythonw, or closed by the shell's >&-
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # a ValueError is a closed stream, or a character it lacks
        atexit.register(drop_pending, stream)


def drop_pending(stream: TextIO) -> None:
    """Make the interpreter's last flush of a stream succeed: a failure changes the exit code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def escape_unprintable() -> None:
    """Make standard output show characters that it lacks as escapes, as standard error does."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
