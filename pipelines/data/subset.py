"""Seeded samples of a data set, stratified by label.

Data sets are often sorted, by class or by capture, so their first N images are not a sample. All
parts that represent a whole split are drawn here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipelines.data import noise

SEED = 0  # of draws by data sets and measures
_PURPOSE = int.from_bytes(
    b"subset", "big"
)  # keeps these draws apart from data order and dynamic noise


def draw(count: int, num: int, labels: np.ndarray | None = None, seed: int = SEED) -> np.ndarray:
    """Draw `num` of `count` images without replacement: sorted indices, int64 (min(num, count),).

    This is a pure function of its arguments. With labels, every class keeps its share of the images
    to within a rounding: member r of the n in a class, in random order, comes at (r + 1/2) / n,
    which is Webster's method of apportionment. With one seed, smaller draws are parts of larger
    ones.

    Args:
        count: images in the whole.
        num: images to draw (0: all).
        labels: (count,) integers, or None for a plain draw.
        seed: another seed, another draw.

    Example:
        >>> labels = np.repeat([0, 1, 2], [50, 30, 20])
        >>> np.bincount(labels[draw(100, 10, labels)]).tolist()
        [5, 3, 2]
        >>> draw(100, 3).tolist() == draw(100, 3).tolist() != draw(100, 3, seed=1).tolist()
        True
    """
    if not 0 < num < count:
        return np.arange(count)
    keys = noise.bits((_PURPOSE, seed), np.arange(count))
    order = np.argsort(keys, kind="stable")
    if labels is not None:
        sizes = np.unique(labels, return_counts=True)[1]
        order = order[np.argsort(labels[order], kind="stable")]  # class by class, each in its order
        rank = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        position = (rank + 0.5) / np.repeat(sizes, sizes)
        order = order[np.lexsort((keys[order], position))]
    return np.sort(order[:num])


class Rows:
    """Some rows of an array, which may be a memory-mapped file, read as they are indexed.

    Example:
        >>> few = Rows(np.arange(10) ** 2, np.array([1, 5, 7]))
        >>> len(few), few[[2, 0]].tolist()
        (3, [49, 1])
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray):
        self.values, self.rows = values, rows
        self.shape = (len(rows), *values.shape[1:])
        self.dtype = values.dtype

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.values[self.rows[rows]]


def take(values: np.ndarray | Rows, rows: np.ndarray) -> np.ndarray | Rows:
    """Return these rows of an array without reading them; the array itself if that is all."""
    if isinstance(values, Rows):
        values, rows = values.values, values.rows[rows]
    return values if len(rows) == len(values) else Rows(values, rows)


def describe(count: int, num: int, labels: np.ndarray | None = None, seed: int = SEED) -> str:
    """Describe the choice of `draw` with these arguments; empty if it takes all.

    Example:
        >>> describe(60_000, 1_000, np.zeros(60_000))
        '1,000 of 60,000, drawn with seed 0, stratified by label'
        >>> describe(60_000, 0)
        ''
    """
    if not 0 < num < count:
        return ""
    stratified = "" if labels is None else ", stratified by label"
    return f"{num:,} of {count:,}, drawn with seed {seed}{stratified}"
