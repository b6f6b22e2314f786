"""Files that the tables are made of: read with suspicion, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

import numpy as np

from eval.errors import ResultError
from eval.text import say


def write_whole(path: Path, content: str | bytes) -> None:
    """Write or replace a file, as a whole or not at all.

    A file that is replaced keeps its mode bits. A symbolic link stays one, and the file that it
    points to is replaced.

    Raises:
        ResultError: the disk is full, the folder read-only, …; `path` is as it was.
    """
    # Half of a surrogate pair, from an edited file, is escaped: JSON reads that as what it was.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:180]}.{secrets.token_hex(4)}.unfinished")
    try:
        if target.exists() and not target.is_file():
            raise ResultError(f"cannot write {path}: it is not a regular file, choose another name")
        with beside.open("xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        raise ResultError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def at_home(path: Path | str) -> Path:
    """Return a path with ~ and ~user replaced by the home folder, where there is one."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises a RuntimeError instead


def emit(text: str, out: Path | None) -> None:
    """Write text to a file, or to the terminal where none is named."""
    if out is None:
        say(text.removesuffix("\n"))
        return
    out = at_home(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)


def read_array(path: Path) -> np.ndarray:
    """Return the array of an .npy file, memory-mapped: no more is read than the file holds.

    Raises:
        ResultError: it is not a whole .npy file of plain numbers; no pickle in it is run.
    """
    try:
        if not path.is_file():  # a named pipe would never end
            raise ResultError(f"{path} is not a regular file")
        array = np.lib.format.open_memmap(path, mode="r")
    except ResultError:
        raise
    except Exception as error:  # whatever a reader makes of a damaged or hostile file
        reason = (isinstance(error, OSError) and error.strerror) or "it is not a whole .npy file"
        raise ResultError(f"cannot read {path}: {reason}") from error
    if array.dtype.kind not in "fiu":
        raise ResultError(f"cannot read {path}: expected numbers, got {array.dtype}")
    return array


def is_own_file(path: Path) -> bool:
    """Tell whether a path is a regular file itself, and not a link to one from elsewhere."""
    return path.is_file() and not path.is_symlink()
