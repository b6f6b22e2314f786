"""Encoded images -> uint8 rows of one big array; run as a module, one of packing's workers.

A worker is `python -m pipelines.data.decoding`: it reads one JSON task a line from standard input
and answers each with one JSON line, the damaged rows. Own processes, not `multiprocessing`: they
import neither torch nor the caller's main module, which needs no `__name__` guard.
"""

from __future__ import annotations

import io
import json
import math
import signal
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

_CONVERTIBLE = {
    "1": "1-bit black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette-coloured",
    "PA": "palette-coloured with alpha",
    "RGB": "RGB",
    "RGBA": "RGBA",
}


class Rules(NamedTuple):
    """What an image must be, and what may be done to make it so."""

    shape: tuple[int, int, int]  # C (1 or 3), H, W
    convert: bool = False  # grey, palette, RGB and RGBA into the C wanted
    resize: bool = False  # box-filtered to cover (H, W), then cropped at the centre


def decode(data: bytes, rules: Rules) -> np.ndarray:
    """Decode one image file into levels, (C, H, W) uint8.

    Raises:
        ValueError: what is wrong with the image, as the end of a sentence that starts with its name
    """
    from PIL import Image, ImageOps

    if not data:
        raise ValueError("is empty (0 bytes): fetch it again or delete it")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 24 and data[24] == 16:
        raise ValueError("has 16 bits per channel: convert it to 8 bits first")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow raises a dozen kinds, from OSError to struct.error
        raise ValueError(
            f"is truncated or not an image ({error}): fetch it again or delete it"
        ) from error
    channels, height, width = rules.shape
    mode, flag = ("RGB", "--rgb") if channels == 3 else ("L", "--gray")
    if image.mode not in _CONVERTIBLE:
        raise ValueError(f"is {image.mode}: convert it to 8-bit {mode} first")
    if image.mode != mode and not rules.convert:
        found, wanted = _CONVERTIBLE[image.mode], _CONVERTIBLE[mode]
        raise ValueError(f"is {found}, not {wanted}: {flag} converts it")
    if image.mode == "P":  # Pillow wants a palette's transparency to go through alpha
        image = image.convert("RGBA")
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        if not rules.resize:
            found = f"{image.width}x{image.height}"
            raise ValueError(f"is {found} pixels, not {width}x{height}: resize or remove it")
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BOX)
    pixels = np.asarray(image)
    return np.moveaxis(pixels, -1, 0) if channels == 3 else pixels[None]


def fill(target: BinaryIO, offset: int, rules: Rules, task: dict) -> list[tuple[int, str]]:
    """Decode one task into its rows of the file `target`, whose row 0 begins at byte `offset`.

    A task has `start`, its first row, and one of: `images`, [[path, offset, bytes], …]; `batch`,
    the path of an npz of planar rows; `parquet`, the path of one, and a row `group` of it.
    Returns the damaged: (row, what is wrong with it).
    """
    start, row_bytes = task["start"], int(np.prod(rules.shape))
    target.seek(offset + start * row_bytes)
    damaged: list[tuple[int, str]] = []
    if "images" in task:
        readers = (lambda item=item: _read(*item) for item in task["images"])
        for row in _decoded(readers, rules, damaged):
            target.write(row)
    else:
        try:
            if "batch" in task:
                blocks = batch_rows(task["batch"], row_bytes)
            else:
                blocks = _parquet_rows(task["parquet"], task["group"], rules, damaged)
            for block in blocks:
                target.write(block)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            return [(start, f"is damaged ({error}): fetch it again")]
    target.flush()
    return [(start + row, reason) for row, reason in damaged]


def _decoded(
    readers: Iterable[Callable[[], bytes]], rules: Rules, damaged: list[tuple[int, str]]
) -> Iterator[bytes]:
    """The images one after another; those that fail are noted in `damaged` and left black.

    One by one: megabytes at once would be asked of the system, and given back, for every task.
    """
    for row, read in enumerate(readers):
        try:
            yield decode(read(), rules).tobytes()
        except ValueError as error:
            damaged.append((row, str(error)))
            yield bytes(math.prod(rules.shape))


def _read(path: str, begin: int, length: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(length)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): restore or delete it") from error


def _parquet_rows(
    path: str, group: int, rules: Rules, damaged: list[tuple[int, str]]
) -> Iterator[bytes]:
    """Column `image` of a row group: encoded files (their `bytes`), or nested lists (H, W, C)."""
    import pyarrow  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    channels, height, width = rules.shape
    column = parquet.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")
    for chunk in column.chunks:
        if pyarrow.types.is_struct(chunk.type):
            values = chunk.field("bytes")
            yield from _decoded((value.as_py for value in values), rules, damaged)
            continue
        count = len(chunk)
        while not pyarrow.types.is_integer(chunk.type):
            chunk = chunk.storage if isinstance(chunk, pyarrow.ExtensionArray) else chunk.flatten()
        levels = chunk.to_numpy(zero_copy_only=False)
        if levels.size != count * height * width * channels or levels.min() < 0:
            raise ValueError(f"its images are not {height}x{width}x{channels} levels")
        images = levels.astype(np.uint8).reshape(count, height, width, channels)
        yield np.moveaxis(images, 3, 1).tobytes()


def batch_shape(path: str) -> tuple[int, int]:
    """Rows and bytes per row of `data` in an npz batch, read from its header alone.

    Raises:
        ValueError: `data` is missing, or is anything but a two-dimensional uint8 array
    """
    with zipfile.ZipFile(path) as archive:
        if "data.npy" not in archive.namelist():
            raise ValueError("it has no array 'data'")
        with archive.open("data.npy") as file:
            return _header(file)


def batch_rows(path: str, width: int, count: int = 4096) -> Iterator[bytes]:
    """The rows of `data` in an npz batch, `count` at a time, so that memory stays bounded."""
    with zipfile.ZipFile(path) as archive, archive.open("data.npy") as file:
        rows, found = _header(file)
        if found != width:
            raise ValueError(f"its rows have {found} bytes, not {width}")
        for start in range(0, rows, count):
            wanted = min(count, rows - start) * width
            block = file.read(wanted)
            if len(block) != wanted:
                raise ValueError("its array 'data' ends early")
            yield block


def _header(file) -> tuple[int, int]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    shape, fortran, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        file
    )
    if dtype != np.uint8 or len(shape) != 2 or fortran:
        raise ValueError(f"'data' is {dtype} {shape}, not uint8 (N, D)")
    return shape[0], shape[1]


def main() -> None:
    """Serve tasks until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    setup = json.loads(sys.stdin.readline())
    rules = Rules(tuple(setup["shape"]), setup["convert"], setup["resize"])
    with open(setup["target"], "r+b") as target:
        for line in sys.stdin:
            print(json.dumps(fill(target, setup["offset"], rules, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
