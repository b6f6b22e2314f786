"""Lock of a folder: one process at a time writes to a run, and any other is refused.

    .lock   {"host": …, "boot": …, "pid": …, "started": …, "since": …}, under the kernel's lock

The kernel drops its lock (flock) with the process, however that ends, so what a killed process
leaves behind is known to be stale on the same machine, in another container too. Some network file
systems keep no such locks, or keep them on each machine alone. That is why the file names its
owner: a process of another machine is never assumed to be gone, and where there are no kernel's
locks at all, a process of this machine is gone if there is none of this number and start time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.runtime.errors import UserError, WriteError

LOCK = ".lock"

_held: set[Path] = set()  # by this process


class LockedError(UserError):
    """Another process writes to the folder, or may still do so."""

    agreed = False


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder; within a block that holds it already, do nothing.

    Raises:
        LockedError: another process holds it, which the message names.
        WriteError: the folder can't be written to.
    """
    path = Path(os.path.realpath(folder)) / LOCK
    if path in _held:
        yield
        return
    file = _take(path)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with contextlib.suppress(OSError):
            path.unlink()  # before the kernel's lock is gone: nobody else can have taken it
        file.close()


def _take(path: Path) -> BinaryIO:
    """Return the lock file, with this process as its owner."""
    while True:
        file, created = _open(path)
        try:
            locked = _lock(file)
            if _is_same(file, path):
                owner = _read(file)
                if not created and not _is_gone(owner, locked=locked):
                    raise _refusal(path, owner, certain=False)
                _write(file, path)
                return file
        except BlockingIOError:
            owner = _read(file)
            file.close()
            raise _refusal(path, owner, certain=True) from None
        except BaseException:
            file.close()
            raise
        file.close()  # its owner has just deleted it


def _open(path: Path) -> tuple[BinaryIO, bool]:
    try:
        with contextlib.suppress(FileExistsError):
            return open(path, "x+b", buffering=0), True
        return open(path, "r+b", buffering=0), False
    except FileNotFoundError:  # deleted in between
        if path.parent.is_dir():
            return _open(path)
        raise WriteError(f"there is no folder {path.parent}") from None
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _lock(file: BinaryIO) -> bool:
    """Take the kernel's lock; False where the file system has none.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(file: BinaryIO) -> dict[str, Any]:
    """Return the owner that a lock file names; {} if it can't be read."""
    try:
        file.seek(0)
        owner = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(file: BinaryIO, path: Path) -> None:
    owner = {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        file.seek(0)
        file.truncate()
        file.write(json.dumps(owner).encode() + b"\n")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _is_gone(owner: dict[str, Any], *, locked: bool) -> bool:
    """Return whether the owner named in a lock file can't be writing any more.

    Args:
        owner: of the file.
        locked: this process has the kernel's lock.
    """
    here = owner.get("host") == socket.gethostname()
    same_boot = owner.get("boot") == _boot() != ""
    if locked and (not owner or here or same_boot):
        return True
    if here and not same_boot and _boot():
        return True  # the machine was rebooted since
    return here and _started(owner["pid"]) != owner.get("started")


def _boot() -> str:
    """Return an identifier of this boot of the machine; "" if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return when a process of this machine started, in the kernel's ticks; None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _refusal(path: Path, owner: dict[str, Any], *, certain: bool) -> LockedError:
    who = f"process {owner.get('pid', '(unknown)')} on {owner.get('host', 'an unknown machine')}"
    since = f", since {owner['since']}" if "since" in owner else ""
    if certain:
        return LockedError(
            f"{path.parent} is in use by {who}{since}: wait for it, stop it, or choose another "
            "run directory"
        )
    return LockedError(
        f"{path.parent} may be in use by {who}{since}: if that process is gone, delete {path}; "
        "otherwise wait for it, or choose another run directory"
    )
