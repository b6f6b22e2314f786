"""Schedule of a run: images, noise and learning rate as functions of the step alone.

Nothing here has state. A resumed run gets the same images at step s as an uninterrupted one, and
any number of processes shares the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from pipelines.data.image_set import Batch, ImageSet
from pipelines.data.sets import order
from pipelines.training.config import steps_per_epoch

T = TypeVar("T")


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return order(seed, epoch, count)


def batch_indices(step: int, *, seed: int, count: int, batch_size: int) -> np.ndarray:
    """Return the indices of the global batch of a step (counted from 0)."""
    epoch, position = divmod(step, steps_per_epoch(count, batch_size))
    begin = position * batch_size
    return _order(seed, epoch, count)[begin : begin + batch_size]


class Work(NamedTuple):
    """Work of one process in one step.

    Attributes:
        indices: of the whole global batch, the same in every process.
        parts: this process's micro-batches: at least one, at most `accumulate`, and equally many
            in every process, since each forward and backward may be a collective.
        weights: of each part, 1.0; or 0.0 for a placeholder, if there are too few images for this
            process.
    """

    indices: np.ndarray
    parts: list[Batch]
    weights: list[float]


def share(indices: np.ndarray, rank: int, world: int, parts: int) -> list[np.ndarray]:
    """Return a process's share of a global batch, in nonempty parts of nearly equal size.

    >>> [part.tolist() for part in share(np.arange(7), rank=1, world=2, parts=2)]
    [[1, 3], [5]]
    >>> share(np.arange(1), rank=1, world=2, parts=2)
    []
    """
    return [part for part in np.array_split(indices[rank::world], parts) if len(part)]


def work(
    images: ImageSet,
    step: int,
    *,
    seed: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
) -> Work:
    """Read this process's share of a step's images."""
    indices = batch_indices(step, seed=seed, count=len(images), batch_size=batch_size)
    shares = share(indices, rank, world, accumulate)
    placeholders = len(share(indices, 0, world, accumulate)) - len(shares)
    taken = shares + [indices[:1]] * placeholders
    parts = [images.batch(part, noise_seed=(seed, step)) for part in taken]
    return Work(indices, parts, [1.0] * len(shares) + [0.0] * placeholders)


def ahead(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """Yield make(start) … make(stop - 1), each made in a thread while the previous one is used.

    >>> list(ahead(lambda step: step * step, 2, 5))
    [4, 9, 16]
    """
    if start >= stop:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(make, start)
        for step in range(start + 1, stop + 1):
            current = coming.result()
            if step < stop:
                coming = pool.submit(make, step)
            yield current


def seed_step(seed: int, step: int, rank: int, part: int) -> None:
    """Seed PyTorch's global generators, so that dropout and latent noise depend on the step."""
    state = np.random.SeedSequence((seed, step, rank, part)).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))


def learning_rate(step: int, total: int, *, peak: float, warmup: int, decay: str) -> float:
    """Return the learning rate: linear warm-up to `peak`, then constant or a half cosine to zero.

    >>> [learning_rate(s, 8, peak=1.0, warmup=4, decay="constant") for s in (0, 3, 7)]
    [0.25, 1.0, 1.0]
    >>> [round(learning_rate(s, 8, peak=1.0, warmup=0, decay="cosine"), 3) for s in (0, 4, 8)]
    [1.0, 0.5, 0.0]
    """
    rate = peak * min(1.0, (step + 1) / warmup) if warmup > 0 else peak
    if decay == "cosine" and step >= warmup:
        done = (step - warmup) / max(total - warmup, 1)
        rate *= 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return rate
