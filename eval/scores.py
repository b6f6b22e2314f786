"""Scores of a set of images, one number per image, and their units. No torch needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def bits_per_dim(nats: float, dims: int) -> float:
    """Convert nats per image to bits per dimension (sub-pixel): nats / (dims · ln 2).

    >>> round(bits_per_dim(79.02, 28 * 28), 4)
    0.1454
    """
    if dims < 1:
        raise ValueError(f"expected at least one dimension (C·H·W), got dims={dims}")
    return nats / (dims * math.log(2))


@dataclass(frozen=True)
class Score:
    """One number per image in nats, and the mean over the set with its standard error.

    >>> score = Score(np.array([1.0, 3.0]))
    >>> score.mean, score.stderr, score.count
    (2.0, 1.0, 2)
    """

    values: np.ndarray  # (N,) float64, in the order of the set

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean nats per image."""
        return float(self.values.sum() / self.count)

    @property
    def stderr(self) -> float:
        """Standard error of the mean in nats; NaN for a single image."""
        if self.count < 2:
            return math.nan
        return float(self.values.std(ddof=1) / math.sqrt(self.count))


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a whole set: `nll = distortion + rate`, image by image.

    >>> distortion, rate = Score(np.array([70.0, 80.0])), Score(np.array([5.0, 7.0]))
    >>> evaluation = Evaluation(distortion, rate, kl=(np.array([4.0, 2.0]),), dims=28 * 28)
    >>> evaluation.nll.mean, evaluation.rates, round(evaluation.bits_per_dim, 4)
    (81.0, (6.0,), 0.1491)
    """

    distortion: Score
    rate: Score
    kl: tuple[np.ndarray, ...]  # per level, top first: (D_level,) mean nats per dimension
    dims: int  # C·H·W of an image

    @property
    def nll(self) -> Score:
        """Negative log-likelihood, or negative ELBO if the model has latents."""
        return Score(self.distortion.values + self.rate.values)

    @property
    def rates(self) -> tuple[float, ...]:
        """Nats per image of each latent level, top first; their sum is the mean rate."""
        return tuple(float(level.sum()) for level in self.kl)

    @property
    def bits_per_dim(self) -> float:
        """Mean bits per dimension."""
        return bits_per_dim(self.nll.mean, self.dims)

    @property
    def bits_per_dim_stderr(self) -> float:
        """Standard error of the mean bits per dimension."""
        return bits_per_dim(self.nll.stderr, self.dims)
