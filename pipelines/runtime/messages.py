"""Messages to the user that never end a command: the terminal may close, a log's disk be full."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TextIO

from eval.text import visible


def say(message: str, *, end: str = "\n") -> None:
    """Print a message on standard error, if it can be written.

    What it quotes of names and files can't drive the terminal: such characters become escapes.
    """
    write(sys.stderr, visible(message, keep="\n\t") + end)


def warn(message: str) -> None:
    """Print a warning that nobody should miss on standard error, if it can be written."""
    say(f"WARNING: {message}")


def show(text: str) -> None:
    """Print what a command found on standard output, if it can be written."""
    write(sys.stdout, visible(text, keep="\n\t") + "\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write text to a stream and flush it; where that fails, go on without."""
    if stream is None:  # as under pythonw, or closed by the shell's >&-
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # a ValueError is a closed stream, or a character it lacks
        atexit.register(drop_pending, stream)


def drop_pending(stream: TextIO) -> None:
    """Let the interpreter's last flush of a stream succeed: it would change the exit code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def escape_unprintable() -> None:
    """Let standard output show characters that it lacks as escapes, as standard error does."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
