"""A packed set in the making: the data file, and the journal of its finished tasks.

Two names: STEM.part and STEM.journal. At the end they become STEM.npy and STEM.json, and until then
nothing takes them for a whole set. The process that writes them holds the lock of their name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.raw import DataError
from pipelines.data.subset import Rows
from pipelines.runtime.files import whole_file

_SYNC_SECONDS = 5.0

Damages = list[tuple[int, str]]  # row, and what is wrong with it


class Part:
    """A packed set in the making.

    Args:
        whole: the path of the packed set, once it is whole: NAME-HASH.npy.
        shape: of its array, (N, C, H, W).

    Raises:
        DataError: there is no room for it
    """

    def __init__(self, whole: Path, shape: tuple[int, int, int, int]):
        self.whole = whole
        self.path = whole.with_suffix(".part")
        self.journal = whole.with_suffix(".journal")
        self.shape = shape
        self.header = _npy_header(shape)
        self.done: dict[int, Damages] = self._finished()
        self._new: list[str] = []
        self._synced = time.monotonic()

    def _finished(self) -> dict[int, Damages]:
        """The tasks that an interrupted packing has finished; a new part has none."""
        size = len(self.header) + math.prod(self.shape)
        with contextlib.suppress(OSError, ValueError):  # none, or its journal is damaged
            if self.path.stat().st_size == size:
                lines = self.journal.read_text().split("\n")[:-1]  # none that is unfinished
                return {
                    start: [(row, why) for row, why in d] for start, d in map(json.loads, lines)
                }
        self._remove_stale()
        with open(self.path, "wb") as file:
            file.write(self.header)
            file.flush()
            self._reserve(file.fileno(), size)
        return {}

    def _reserve(self, handle: int, size: int) -> None:
        """Take the room now: on a full disk, a file with holes ends who writes it, perhaps."""
        try:
            free = shutil.disk_usage(self.path.parent).free
            if free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system has no such thing
                return os.truncate(handle, size)
            self.path.unlink()
            raise DataError(
                f"{self.path.parent} has {free / 2**20:,.0f} MiB free and the packed images need "
                f"{size / 2**20:,.0f} ({error.strerror}): make room, or name another folder with "
                "--cache-dir"
            ) from error
        os.truncate(handle, size)
        return None

    def _remove_stale(self) -> None:
        """Remove what is left of packing an earlier state of the source under the same name."""
        name = re.escape(self.whole.stem.rsplit("-", 1)[0])
        stale = re.compile(rf"\.?{name}-[0-9a-f]{{20}}\.(part|journal|tmp|json\.tmp|.*unfinished)")
        for path in self.path.parent.iterdir():
            if stale.fullmatch(path.name):
                path.unlink()

    def add(self, start: int, found: Damages) -> None:
        """Note a finished task by its first row, for good at the next sync."""
        self.done[start] = found
        self._new.append(json.dumps([start, found]) + "\n")
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring the data to the disk, and only then the journal."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())
        with open(self.journal, "a") as file:
            file.writelines(self._new)
        self._new, self._synced = [], time.monotonic()

    def finish(self, pixels: np.ndarray | Rows, about: dict[str, Any]) -> None:
        """Turn the part into the whole; the last rename is what makes it one.

        Args:
            pixels: those images of the part that are kept, all or some.
            about: for the sidecar.
        """
        header = _npy_header((len(pixels), *self.shape[1:]))
        sidecar = {**about, "bytes": len(header) + pixels.size}
        with whole_file(self.whole.with_suffix(".json"), replace=True) as file:
            file.write(json.dumps(sidecar, indent=2).encode())
        if len(pixels) == self.shape[0]:
            os.replace(self.path, self.whole)
        else:
            with whole_file(self.whole, replace=True) as file:
                file.write(header)
                for start in range(0, len(pixels), 4096):
                    file.write(pixels[np.arange(start, min(start + 4096, len(pixels)))].data)
            self.path.unlink()
        self.journal.unlink()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()
