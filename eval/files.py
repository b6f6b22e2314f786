"""Reading of files that may be damaged or hostile, and atomic writing."""

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
    """Write or replace a file atomically.

    A replaced file keeps its mode bits. A symbolic link stays a link, and the file it points to is
    replaced.

    Raises:
        ResultError: the disk is full, the folder is read-only, …; `path` is unchanged.
    """
    # Half of a surrogate pair, from an edited file, is escaped: JSON reads that back unchanged.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:180]}.{secrets.token_hex(4)}.unfinished")
    try:
        if target.exists() and not target.is_file():
            raise ResultError(
                f"cannot write {path}: it is not a regular file, so choose another name"
            )
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
    """Return a path with ~ and ~user expanded to the home folder, if there is one."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises a RuntimeError instead


def emit(text: str, out: Path | None) -> None:
    """Write text to a file, or to the terminal if `out` is None."""
    if out is None:
        say(text.removesuffix("\n"))
        return
    out = at_home(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)


def read_array(path: Path) -> np.ndarray:
    """Return the array in an .npy file, memory-mapped. No pickle is loaded.

    Raises:
        ResultError: it is not a complete .npy file of numbers.
    """
    try:
        if not path.is_file():  # reading a named pipe would never end
            raise ResultError(f"{path} is not a regular file")
        array = np.lib.format.open_memmap(path, mode="r")
    except ResultError:
        raise
    except Exception as error:  # of any kind, from a damaged or hostile file
        reason = (isinstance(error, OSError) and error.strerror) or "it is not a complete .npy file"
        raise ResultError(f"cannot read {path}: {reason}") from error
    if array.dtype.kind not in "fiu":
        raise ResultError(f"cannot read {path}: expected numbers, got {array.dtype}")
    return array


def is_own_file(path: Path) -> bool:
    """Tell whether a path is a regular file itself, not a symbolic link to one."""
    return path.is_file() and not path.is_symlink()
