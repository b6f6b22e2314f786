"""Decoding of images into uint8 rows of one large array, in worker processes of packing.

A worker reads one JSON task per line from standard input, and answers each with one JSON line, the
damaged rows. Processes of our own, not of `multiprocessing`: they import neither torch nor the
caller's main module, which needs no `__name__` guard.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.data import batches, parquet
from pipelines.data.image_files import MAX_BYTES, Problem, Rules, UnfitError, decode


def fill(target: BinaryIO, offset: int, rules: Rules, task: dict) -> list[tuple[int, str]]:
    """Decode one task into its rows of the file `target`, whose row 0 begins at byte `offset`.

    A task has `start`, its first row, `count`, and one of: `images`, [[path, offset, bytes], …];
    `batch`, the path of an npz of planar rows; `parquet`, the path of one, and a row `group` of it.
    With `taken`, a list of numbers, only those images of the batch or group are decoded.

    Returns:
        Damaged rows, each with its fault.

    Raises:
        OSError: `target` can't be written, which is not a fault of the images
    """
    start, row_bytes = task["start"], int(np.prod(rules.shape))
    target.seek(offset + start * row_bytes)
    damaged: list[tuple[int, str]] = []
    try:
        if "batch" in task:
            blocks = batches.read_rows(task["batch"], row_bytes, task.get("taken"))
        elif "parquet" in task:
            path, group = Path(task["parquet"]), task["group"]
            images = parquet.group_images(path, group, rules, task.get("taken"))
            blocks = _decoded(images, rules, damaged)
        else:
            images = (lambda item=item: decode(read_file(*item), rules) for item in task["images"])
            blocks = _decoded(images, rules, damaged)
        for block in blocks:
            target.write(block)
    except UnfitError as error:  # nothing of the task can be read
        damaged = [(row, str(error)) for row in range(1 if "batch" in task else task["count"])]
    target.flush()
    return [(start + row, reason) for row, reason in damaged]


def _decoded(
    images: Iterable[Callable[[], np.ndarray]], rules: Rules, damaged: list[tuple[int, str]]
) -> Iterator[bytes]:
    """Yield the images one by one; note those that fail in `damaged`, and leave them black.

    A block for the whole task would be allocated and freed by the system each time.
    """
    for row, levels in enumerate(images):
        try:
            yield levels().tobytes()
        except UnfitError as error:
            damaged.append((row, str(error)))
            yield bytes(math.prod(rules.shape))


def read_file(path: str, begin: int, length: int, fault: str = "") -> bytes:
    """Read an encoded image, a whole file or a part of a tar.

    Raises:
        UnfitError: it has a `fault`, found when it was listed, or can't be read now
    """
    if fault:
        raise UnfitError(Problem("damaged", fault))
    if length > MAX_BYTES:
        reason = f"has {length:,} bytes, more than an image needs: delete it"
        raise UnfitError(Problem("damaged", reason))
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(length)
    except OSError as error:
        reason = f"cannot be read ({error.strerror}): restore or delete it"
        raise UnfitError(Problem("damaged", reason)) from error


def main() -> None:
    """Serve tasks until standard input ends."""
    warnings.simplefilter("ignore")  # Pillow's, about metadata
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    setup = json.loads(sys.stdin.readline())
    rules = Rules(**{name: setup[name] for name in Rules._fields})
    rules = rules._replace(shape=tuple(rules.shape))
    with open(setup["target"], "r+b") as target:
        for line in sys.stdin:
            print(json.dumps(fill(target, setup["offset"], rules, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
