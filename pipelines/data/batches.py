"""npz batches in the layout of the downsampled ImageNet release: `data` is uint8 (N, 3·S·S)."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pipelines.data.image_files import Problem, UnfitError
from pipelines.runtime.errors import DataError
from pipelines.runtime.messages import warn

_NAMES = {"train": re.compile(r"train_data_batch_\d+"), "val": re.compile(r"val_data(_\d+)?")}
# A program that turns pickled batches into npz; it takes single quotes only.
CONVERT = (
    "import sys, numpy as np; [np.savez(f + '.npz', data=d['data'], labels=d['labels']) "
    "for f in sys.argv[1:] for d in [np.load(f, allow_pickle=True)]]"
)
_BROKEN = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def find(folders: Iterable[Path], split: str) -> list[Path]:
    """Find the batches of a split, "train" or "val", in their order; empty if there are none.

    Copies named by a browser or file manager, `val_data (1).npz`, are left out with a warning.

    Raises:
        DataError: a batch is in two of the folders
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"{split}_data*.npz")):
            if not _NAMES[split].fullmatch(path.stem):
                warn(f"{path} is left out: its name is not that of a batch but of a copy")
            elif path.name in found:
                raise DataError(
                    f"{found[path.name]} and {path} are the same batch: delete one of them, or "
                    "name the folder of one as --data-dir"
                )
            else:
                found[path.name] = path
    return sorted(found.values(), key=lambda path: (len(path.name), path.name))


def pickled(folders: Iterable[Path]) -> list[Path]:
    """Find pickled batches of the same release, which are not read: they may run any code."""
    paths = (path for folder in folders for path in sorted(folder.iterdir()) if not path.suffix)
    return [path for path in paths if any(name.fullmatch(path.name) for name in _NAMES.values())]


def shape(path: Path) -> tuple[int, int]:
    """Return rows and bytes per row of `data` in a batch, read from its header alone.

    Raises:
        DataError: the file is damaged, or `data` is anything but a two-dimensional uint8 array
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if "data.npy" not in archive.namelist():
                raise ValueError("it has no array 'data'")
            with archive.open("data.npy") as file:
                rows, width = _header(file)
                size = archive.getinfo("data.npy").file_size - file.tell()
        if size != rows * width:
            raise ValueError(f"its array 'data' has {size:,} bytes, not {rows * width:,}")
        return rows, width
    except _BROKEN as error:
        raise DataError(f"{path} is not a batch of images ({error}): fetch it again") from error


def read_rows(
    path: str, width: int, taken: Sequence[int] | None = None, count: int = 4096
) -> Iterator[bytes]:
    """Read the rows of `data` in a batch, `count` at a time, so that memory stays bounded.

    Args:
        path: the batch.
        width: bytes of a row.
        taken: sorted numbers of the rows to read (None: all).
        count: rows in memory at a time.

    Raises:
        UnfitError: the file is damaged, or has rows of another length
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open("data.npy") as file:
            rows, found = _header(file)
            if found != width:
                raise ValueError(f"its rows have {found} bytes, not {width}")
            for start in range(0, rows, count):
                wanted = min(count, rows - start) * width
                block = file.read(wanted)
                if len(block) != wanted:
                    raise ValueError("its array 'data' ends early")
                if taken is not None:
                    inside = [row - start for row in taken if start <= row < start + count]
                    block = np.frombuffer(block, np.uint8).reshape(-1, width)[inside].tobytes()
                yield block
    except _BROKEN as error:
        raise UnfitError(Problem("damaged", f"is damaged ({error}): fetch it again")) from error


def _header(file: IO[bytes]) -> tuple[int, int]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype != np.uint8 or len(shape) != 2 or fortran:
        raise ValueError(f"'data' is {dtype} {shape}, not uint8 (N, D)")
    return shape[0], shape[1]
