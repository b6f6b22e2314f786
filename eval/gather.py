"""Per-image numbers for a whole set, gathered over the processes that share it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.errors import NonFiniteScoreError
from eval.terms import Reduce


def alone(tensor: Tensor) -> Tensor:
    """Return the tensor unchanged: the sum over processes when there is only one."""
    return tensor


def double(tensor: Tensor) -> Tensor:
    """Return a tensor's values on the CPU in float64."""
    # Move first: some accelerators have no float64.
    return tensor.detach().cpu().double()


class PerImage:
    """Per-image numbers for the whole set, filled in by position and summed over processes.

    Each process leaves zeros for the images it did not score, so the sum is the gathered table.
    Every mean is then taken in the order of the set, however many processes shared the work.
    """

    def __init__(self, rows: int, count: int):
        if count < 1:
            raise ValueError(f"expected at least one image to score, got count={count}")
        self.values = torch.zeros(rows, count, dtype=torch.float64)
        self.visits = torch.zeros(count, dtype=torch.float64)

    def put(self, indices: Any, values: Tensor) -> None:
        where = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        count = len(self.visits)
        if where.shape != values.shape[1:]:
            raise ValueError(
                f"expected one index for each of {values.shape[1]} images, got {where.numel()}"
            )
        if len(where) and (int(where.min()) < 0 or int(where.max()) >= count):
            raise ValueError(
                f"indices must be in 0..{count - 1}, got {int(where.min())}..{int(where.max())}"
            )
        self.visits.index_add_(0, where, torch.ones(len(where), dtype=torch.float64))
        self.values[:, where] = double(values)

    def gather(self, reduce: Reduce) -> np.ndarray:
        """Return (rows, count) after checking that every image has exactly one, finite score."""
        visits = reduce(self.visits).numpy()
        values = reduce(self.values).numpy()
        if (visits != 1).any():
            position = int(np.flatnonzero(visits != 1)[0])
            raise ValueError(
                f"each of the {len(visits)} images must be scored exactly once, but image "
                f"{position} was scored {int(visits[position])} times "
                f"({int((visits != 1).sum())} images in total are missing or repeated)"
            )
        if not np.isfinite(values).all():
            position = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
            raise NonFiniteScoreError(
                f"image {position} scored {values[:, position].tolist()} nats: the mean over the "
                "set is undefined (did training diverge?)"
            )
        return values
