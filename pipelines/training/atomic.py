"""Files that are there whole or not at all, whatever happens while they are written.

A file is written beside its target, flushed, synced and renamed over it, and then the folder is
synced: at every moment the target is the old file or the new one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class CheckpointError(ValueError):
    """Something is wrong with a run directory; the message says what, and what to do."""


def warn(message: str) -> None:
    """Say something that nobody should miss, on standard error."""
    print(f"WARNING: {message}", file=sys.stderr, flush=True)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file that replaces `path` all at once, or not at all.

    Where `write` returns a string, that is the file's name in place of the path's: a checksum is
    known only after writing.

    Raises:
        CheckpointError: the disk is full, the folder read-only, …; `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            name = write(file)
            file.flush()
            os.fsync(file.fileno())
        target = path.with_name(name) if isinstance(name, str) else path
        os.replace(beside, target)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; what was saved before is untouched: "
            "make room or make the folder writable, then go on with --resume"
        ) from error
    return target


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))
