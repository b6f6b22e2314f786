"""Number of levels in .npy files that the toolkit writes.

Bytes do not say whether their levels are 0..16 or 0..255. So the files that `compress export`,
`compress decode` and `sample --npy` write have a second array after the images, as `np.save`
allows: one record with the field `levels`. `np.load` reads the images and ignores it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

_RECORD = np.dtype([("levels", "<i8")])


def append_levels(stream: BinaryIO, num_levels: int) -> None:
    """Write the number of levels after the array that a stream ends with."""
    stream.write(_to_bytes(num_levels))


def read_levels(file: Path) -> int | None:
    """Return the number of levels that an .npy file carries, or None if it carries none.

    Raises:
        OSError: the file cannot be read.
    """
    size = len(_to_bytes(0))
    with file.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) < size:
            return None
        stream.seek(-size, os.SEEK_END)
        tail = io.BytesIO(stream.read())
    try:
        record = np.lib.format.read_array(tail, allow_pickle=False)
    except Exception:  # the file ends with something else, whatever NumPy makes of that
        return None
    ours = record.dtype == _RECORD and record.shape == () and tail.tell() == size
    return int(record["levels"]) if ours else None


def _to_bytes(num_levels: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(num_levels, _RECORD))
    return buffer.getvalue()
