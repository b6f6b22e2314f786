"""Atomic writing: a file is complete, or it does not exist.

    .NAME.TOKEN.unfinished  ── write, flush, fsync ──>  rename  ──>  NAME, then fsync of the folder

At every moment the name shows the old file or the new one. A file that replaces another keeps its
mode bits. A symbolic link stays a link, and the file that it points to is replaced.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.runtime.errors import TakenError, WriteError

UNFINISHED = "unfinished"  # the suffix of a file that is being written


@contextlib.contextmanager
def whole_file(
    path: Path, *, replace: bool = False, named: Callable[[], str] | None = None
) -> Iterator[BinaryIO]:
    """Open a file that takes its name once it is complete and on the disk.

    Where an exception ends the block, nothing is left behind and `path` is as it was.

    Args:
        path: the file's name.
        replace: whether it may take the place of another file.
        named: returns the file's name within its folder, if it is known only after the content is
            written, such as a checksum.

    Raises:
        TakenError: there is such a file, and `replace` is false.
        WriteError: the disk is full, the folder read-only, …
    """
    token = secrets.token_hex(4)
    beside = target = path
    stream: _Watched | None = None
    try:
        target = _replaceable(path) if replace else path
        beside = target.with_name(f".{target.name[:180]}.{token}.{UNFINISHED}")
        stream = _Watched(beside, like=target if replace else None)
        yield cast(BinaryIO, stream)
        stream.finish()
        target = target.with_name(named()) if named else target
        (os.replace if replace else _rename_to_new)(beside, target)
        _sync_folder(target.parent)
    except OSError as error:
        if stream is None or stream.error is not None or stream.closed:
            raise _cannot_write(path, error) from error
        raise  # the block's own, such as a file that it reads
    except Exception as error:
        if stream is not None and stream.error is not None:  # a library made another error of it
            raise _cannot_write(path, stream.error) from error
        raise
    finally:
        if stream is not None:
            stream.close()
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file, in UTF-8.

    Raises:
        WriteError: it can't be written; `path` is as it was.
    """
    with whole_file(path, replace=True) as stream:
        stream.write(text.encode())


def put_in_place(part: Path, path: Path) -> None:
    """Rename a complete file that worker processes wrote, once its content is on the disk.

    Raises:
        OSError: it can't be renamed.
    """
    with open(part, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync_folder(path.parent)


def at_home(path: str | Path) -> Path:
    """Return a path with ~ and ~user replaced by the home folder, where there is one.

    >>> at_home("~nobody-of-this-name/runs")
    PosixPath('~nobody-of-this-name/runs')
    """
    return Path(os.path.expanduser(path))  # Path.expanduser raises a RuntimeError instead


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Watched(io.BufferedIOBase):
    """New file that remembers the first error of writing to it.

    Libraries hide that error: `torch.save` turns it into a RuntimeError about its own archive.
    """

    def __init__(self, path: Path, like: Path | None) -> None:
        self.error: OSError | None = None
        self._file = open(path, "xb")  # noqa: SIM115
        if like is not None and like.exists():
            os.fchmod(self._file.fileno(), stat.S_IMODE(like.stat().st_mode))

    def write(self, data: Any, /) -> int:
        return self._watch(self._file.write, data)

    def flush(self) -> None:
        if not self.closed:
            self._watch(self._file.flush)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._watch(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def finish(self) -> None:
        """Bring the content to the disk, and close."""
        self._watch(self._file.flush)
        self._watch(os.fsync, self._file.fileno())
        self._watch(self._file.close)

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a flush that fails again
            self._file.close()

    def _watch(self, do: Callable[..., Any], *args: Any) -> Any:
        try:
            return do(*args)
        except OSError as error:
            self.error = self.error or error
            raise


def _replaceable(path: Path) -> Path:
    """Return the file behind symbolic links; refuse what is not a regular file."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise WriteError(f"cannot write {path}: it is not a regular file, so choose another name")
    return target


def _rename_to_new(beside: Path, target: Path) -> None:
    """Rename a file, unless the new name is taken: also by another process, just now."""
    try:
        os.link(beside, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        os.replace(beside, target)


def _cannot_write(path: Path, error: OSError) -> WriteError:
    if isinstance(error, FileExistsError):
        return TakenError(f"{path} exists already: choose another name, or delete it first")
    return WriteError(
        f"cannot write {path}: {error.strerror or error}; what was saved before is untouched: "
        "make room or make the folder writable"
    )
