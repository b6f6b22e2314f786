"""Use of the latents: rate, active units, mutual information, and the gain of an image's own code.

A strong decoder may learn to ignore its code. `measure_latents` combines these numbers into
`Latents`, whose verdict says whether the posterior has collapsed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.collapse import Latents, Level
from eval.scores import Score

ACTIVE_VARIANCE = 0.01  # Burda et al. 2015


def _matrix(values: Any, name: str) -> np.ndarray:
    """Return (N, D) float64 of a tensor or array (N, …)."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or len(array) < 2:
        raise ValueError(f"{name} must be (N, …) for at least two images, got {array.shape}")
    return array.reshape(len(array), -1)


def active_units(means: Any, threshold: float = ACTIVE_VARIANCE) -> np.ndarray:
    """Tell which latent dimensions vary with the image: variance of the posterior mean ≥ threshold.

    The variance is over the whole set at once, with divisor N - 1 (Burda, Grosse and
    Salakhutdinov, "Importance Weighted Autoencoders", 2015, https://arxiv.org/abs/1509.00519).

    Args:
        means: (N, …) posterior means of a set of images.
        threshold: 0.01 by convention.

    Returns:
        (D,) booleans; D is the flattened size of a code.

    >>> active_units([[0.0, 5.0], [1.0, 5.0]]).tolist()
    [True, False]
    """
    return _matrix(means, "posterior means").var(axis=0, ddof=1) >= threshold


class MutualInformation(NamedTuple):
    """I(x; z) under the aggregate posterior of N images, in nats, and the cap log N on it."""

    nats: float
    stderr: float
    cap: float

    def __str__(self) -> str:
        return f"{self.nats:.2f} ± {self.stderr:.2f} nats (an estimate that can't exceed its \
cap log N = {self.cap:.2f})"


def mutual_information(
    means: Any, stds: Any, *, generator: torch.Generator | None = None, chunk: int = 256
) -> MutualInformation:
    """Estimate I(x; z) = E[log q(z|x) - log q(z)], where q(z) is the mean posterior of N images.

    One z is drawn for each image. log q(z) is a log-sum-exp over all N diagonal Gaussians minus
    log N. Since an image's own Gaussian is among them, no draw can exceed log N: an estimate near
    that cap is only a lower bound. It can be slightly negative by chance.

    After Hoffman and Johnson, "ELBO surgery", 2016; as used by He et al., "Lagging Inference
    Networks and Posterior Collapse", 2019, https://arxiv.org/abs/1901.05534.

    Args:
        means: (N, …) posterior means.
        stds: (N, …) posterior standard deviations, positive.
        generator: random generator for z.
        chunk: number of draws compared with all N posteriors at once; memory is chunk · N.

    >>> means = torch.arange(8.0)[:, None] * 100  # far apart: z identifies the image
    >>> print(mutual_information(means, torch.ones(8, 1)))
    2.08 ± 0.00 nats (an estimate that can't exceed its cap log N = 2.08)
    """
    mean = torch.from_numpy(_matrix(means, "posterior means"))
    std = torch.from_numpy(_matrix(stds, "posterior standard deviations"))
    if mean.shape != std.shape or not bool((std > 0).all()):
        raise ValueError(
            "mutual information needs a positive standard deviation for every mean, got shapes "
            f"{tuple(mean.shape)} and {tuple(std.shape)}, smallest {float(std.min())}: "
            "a deterministic code has none"
        )
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    draws = mean + std * noise
    precision = std**-2
    constant = (mean**2 * precision).sum(1) / 2 + std.log().sum(1)
    parts = []
    for rows in torch.arange(len(mean)).split(chunk):
        z = draws[rows]
        # log N(z; mean_j, std_j) for all j, without the constant D/2 log 2π, which cancels.
        log_q = z @ (mean * precision).T - (z**2) @ precision.T / 2 - constant
        own = log_q.gather(1, rows[:, None])[:, 0]
        parts.append(own - log_q.logsumexp(1) + math.log(len(mean)))
    score = Score(torch.cat(parts).numpy())
    return MutualInformation(score.mean, score.stderr, math.log(len(mean)))


def swap_gain(
    log_prob: Callable[[Tensor, Tensor], Tensor], x: Tensor, own: Tensor, other: Tensor
) -> Tensor:
    """Return the nats that each image gains from its own code over another image's: (B,).

    log p(x_i | own_i) - log p(x_i | other_i). It is about zero if the decoder ignores the code,
    at any rate. Choose the other images at random from the whole set: neighbors in a set that
    is sorted by class have nearly the same code.

    Args:
        log_prob: the decoder's `(x, h) -> (B,)` in nats, in eval mode.
        x: (B, C, H, W) levels.
        own: (B, …) codes of x.
        other: (B, …) codes of other images.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> swap_gain(lambda x, h: -((x - h) ** 2).sum(1), x, x, x.flip(0)).tolist()
    [1.0, 1.0]
    """
    if not len(x) == len(own) == len(other):
        raise ValueError(
            f"expected two codes for each of {len(x)} images, got {len(own)} of their own and "
            f"{len(other)} of others"
        )
    with torch.no_grad():
        return log_prob(x, own) - log_prob(x, other)


def measure_latents(
    distortion: float,
    kl: Sequence[np.ndarray] | None,
    posteriors: Sequence[tuple[Any, Any | None]],
    gain: Score | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Latents:
    """Return the measurements of a model's latents on a set of images.

    Args:
        distortion: mean nats per image.
        kl: per level, top first, (D,) mean nats per dimension, as in `Evaluation.kl`; None for a
            deterministic code, which is free.
        posteriors: per level, top first, the means and standard deviations (N, …). None in place of
            standard deviations if the posterior isn't Gaussian: no mutual information.
        gain: nats of each image's own code over a swapped one, if measured.
        generator: random generator for the draws of the mutual information.

    >>> means, stds = torch.arange(8.0)[:, None] * 100, torch.ones(8, 1)
    >>> measure_latents(70.0, [np.array([9.0])], [(means, stds)]).verdict
    'The code is used: 1 of 1 dimensions active, 9.00 nats per image.'
    """
    if kl is not None and len(kl) != len(posteriors):
        raise ValueError(f"expected {len(kl)} levels of posteriors, got {len(posteriors)}")
    levels = []
    for number, (means, stds) in enumerate(posteriors):
        active = tuple(bool(on) for on in active_units(means))
        if kl is None:
            levels.append(Level(None, (), active, None, None, None))
            continue
        rates = tuple(float(rate) for rate in kl[number])
        if stds is None:  # rates are then per code, for any size of the code's vector
            levels.append(Level(sum(rates), rates, active, None, None, None))
            continue
        if len(rates) != len(active):
            raise ValueError(f"expected rates of {len(active)} dimensions, got {len(rates)}")
        information = mutual_information(means, stds, generator=generator)
        levels.append(Level(sum(rates), rates, active, *information))
    count = len(posteriors[0][0]) if posteriors else 0
    own = (None, None) if gain is None else (gain.mean, gain.stderr)
    return Latents(distortion, tuple(levels), *own, count)
