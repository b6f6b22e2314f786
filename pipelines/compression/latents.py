"""Latents on a grid, so that bits-back coding can pop them by q(z|x) and push them by p(z).

    z = cell / points          cell = step * width + rest

A cell is coded in two parts: its step by a Gaussian, then its place in that step evenly. Steps are
an eighth of q's deviation, or 1/32 for p(z), and a Gaussian hardly changes within one: the even
part costs less than 0.001 nats.

Two parts rather than one for this: the coder gives every symbol a probability of at least 2**-24,
so that one of N symbols in 2**24 / N is drawn uniformly. In the first version of the
format those were the 8,193 cells of the whole grid: one latent in 2,000 came from anywhere in ±16,
and the image, coded by a senseless code, cost twice as much. The 145 steps about q's mean are drawn
so once in 100,000 latents, and reach no further than some 12 deviations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from decoders import coding

FARTHEST = 16.0  # a posterior's mean is at most this far from zero
WIDEST = 2.0  # and its deviation at most this
COARSEST, FINEST = 8, 2**16  # cells in a unit, at least and at most
STEPS = 72  # of q(z|x) on each side of its mean
PRIOR_STEPS = 32  # of p(z) in a unit
REACH = 48  # p(z) ends this far from zero: beyond FARTHEST and all steps about it

_uniform = coding.entropy_models.Uniform()


class Cells(NamedTuple):
    """Distribution of cells (n,), with which a stack pops and pushes them.

    Attributes:
        model: the coder's distribution of steps, counted from the anchors.
        mean, std: its parameters, in steps; (n,) float64.
        anchor: the steps that the model counts from; (n,) integers.
        width: the cells in a step; (n,) integers.
    """

    model: Any
    mean: np.ndarray
    std: np.ndarray
    anchor: np.ndarray
    width: np.ndarray

    def pop(self, coder: Any) -> np.ndarray:
        """Take cells (n,) from a stack."""
        step = self.anchor + coder.decode(self.model, self.mean, self.std)
        rest, wide = np.zeros_like(self.width), self.width > 1
        if wide.any():
            rest[wide] = coder.decode(_uniform, self.width[wide])
        return step * self.width + rest

    def push(self, coder: Any, cells: np.ndarray) -> None:
        """Put cells (n,) on a stack: `pop` reversed.

        Raises:
            CodingError: the distribution has no such cells.
        """
        step, rest = np.divmod(cells, self.width)
        wide = self.width > 1
        if wide.any():
            coder.encode_reverse(rest[wide], _uniform, self.width[wide])
        try:
            coder.encode_reverse(step - self.anchor, self.model, self.mean, self.std)
        except KeyError as error:
            raise coding.CodingError("the latents are not of this posterior") from error


class Grid:
    """Cells of one size.

    Args:
        points: number of cells in a unit.
    """

    _near = coding.entropy_models.QuantizedGaussian(-STEPS, STEPS)
    _all = coding.entropy_models.QuantizedGaussian(-REACH * PRIOR_STEPS, REACH * PRIOR_STEPS)

    def __init__(self, points: int):
        self.points = points

    @classmethod
    def fit(cls, smallest_std: float) -> Grid:
        """Return the coarsest grid on which the narrowest posterior is still a Gaussian.

        A finer one only needs more initial bits.
        """
        return cls(max(COARSEST, 2 ** math.ceil(math.log2(2 / max(smallest_std, 2 / FINEST)))))

    def bounded(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior that is coded: within the grid, and no narrower than a cell."""
        return mean.clip(-FARTHEST, FARTHEST), std.clip(1 / self.points, WIDEST)

    def posterior(self, mean: np.ndarray, std: np.ndarray) -> Cells:
        """Return q(z|x), given its mean and deviation (n,)."""
        mean, std = (part * self.points for part in self.bounded(mean, std))
        width = np.maximum(1, np.rint(std / 8)).astype(np.int32)
        mean = (mean - (width - 1) / 2) / width  # of a step's middle cell
        anchor = np.rint(mean).astype(np.int32)
        return Cells(self._near, mean - anchor, std / width, anchor, width)

    def prior(self, num: int) -> Cells:
        """Return p(z) of `num` latents."""
        width = max(1, self.points // PRIOR_STEPS)
        return Cells(
            self._all,
            np.full(num, -(width - 1) / 2 / width),
            np.full(num, self.points / width),
            np.zeros(num, np.int32),
            np.full(num, width, np.int32),
        )


class FirstGrid(Grid):
    """Grid of the format's first version: every cell is a step, from -16 to 16."""

    _whole = coding.entropy_models.QuantizedGaussian(-16 * 256, 16 * 256)

    def __init__(self) -> None:
        super().__init__(256)

    def bounded(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior that is coded."""
        return mean.clip(-16, 16), std.clip(1 / 256, 16)

    def posterior(self, mean: np.ndarray, std: np.ndarray) -> Cells:
        """Return q(z|x), given its mean and deviation (n,)."""
        mean, std = self.bounded(mean, std)
        return self._cells(mean * 256, std * 256)

    def prior(self, num: int) -> Cells:
        """Return p(z) of `num` latents."""
        return self._cells(np.zeros(num), np.full(num, 256.0))

    def _cells(self, mean: np.ndarray, std: np.ndarray) -> Cells:
        zeros = np.zeros(len(mean), np.int32)
        return Cells(self._whole, mean, std, zeros, zeros + 1)
