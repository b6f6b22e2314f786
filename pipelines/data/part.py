"""A packed set while it is written: STEM.part, which becomes STEM.npy with the sidecar STEM.json.

Until the last rename nothing takes it for a whole set. The process that writes it holds the lock of
its name, and removes the leftovers of killed processes.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.subset import Rows
from pipelines.runtime.errors import DataError
from pipelines.runtime.files import put_in_place, whole_file


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the head of an npy file of bytes."""
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def create(whole: Path, shape: tuple[int, ...]) -> Path:
    """Create the part of a packed set, an npy file whose values are still to be written.

    Args:
        whole: path of the packed set, NAME-HASH.npy.
        shape: of its array, (N, C, H, W).

    Raises:
        DataError: there is no room for it
    """
    _remove_stale(whole)
    path, header = whole.with_suffix(".part"), npy_header(shape)
    with open(path, "wb") as file:
        file.write(header)
        file.flush()
        _reserve(path, file.fileno(), len(header) + math.prod(shape))
    return path


def _reserve(path: Path, handle: int, size: int) -> None:
    """Allocate the blocks now: on a full disk, a write to a sparse file may be a bus error."""
    try:
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system can't allocate
            return os.truncate(handle, size)
        path.unlink()
        free = shutil.disk_usage(path.parent).free
        raise DataError(
            f"{path.parent} has {free / 2**20:,.0f} MiB free and the packed images need "
            f"{size / 2**20:,.0f} ({error.strerror}): make room, or name another folder with "
            "--cache-dir"
        ) from error
    os.truncate(handle, size)
    return None


def _remove_stale(whole: Path) -> None:
    """Remove leftovers of packing this set, or an earlier state of its source."""
    name = re.escape(whole.stem.rsplit("-", 1)[0])
    stale = re.compile(rf"\.?{name}-[0-9a-f]{{20}}\.(part|journal|tmp|json\.tmp|.*unfinished)")
    for path in whole.parent.iterdir():
        if stale.fullmatch(path.name):
            path.unlink()


def finish(part: Path, whole: Path, pixels: np.ndarray | Rows, about: dict[str, Any]) -> None:
    """Turn a part into the whole set; the last rename completes it.

    Args:
        part: the file, with all values written.
        whole: path of the packed set.
        pixels: the images of the part that are kept, all or some.
        about: content of the sidecar.
    """
    header = npy_header(pixels.shape)
    sidecar = {**about, "bytes": len(header) + pixels.size}
    with whole_file(whole.with_suffix(".json"), replace=True) as file:
        file.write(json.dumps(sidecar, indent=2).encode())
    if len(header) + pixels.size == part.stat().st_size:
        put_in_place(part, whole)
        return
    with whole_file(whole, replace=True) as file:
        file.write(header)
        for start in range(0, len(pixels), 4096):
            file.write(pixels[np.arange(start, min(start + 4096, len(pixels)))].data)
