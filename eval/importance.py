"""Importance-weighted estimates of log p(x), for models with latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from eval.gather import PerImage, alone, double
from eval.mode import scoring
from eval.scores import Score
from eval.terms import Batches, Model, Noise, Reduce, call


def _check_ks(ks: Sequence[int], chunk: int) -> None:
    if not ks or min(ks) < 1 or chunk < 1:
        raise ValueError(f"expected K and chunk of at least 1, got K={list(ks)}, chunk={chunk}")
    if any(large % small or large == small for small, large in pairwise(ks)):
        raise ValueError(f"each K must be a multiple of the one before, got {list(ks)}")


def importance_curve(
    model: Model,
    x: Tensor,
    y: Any,
    ks: Sequence[int] = (1, 10, 100, 1000),
    *,
    chunk: int = 10,
    noise: Callable[[int, int], Any] | None = None,
) -> Tensor:
    """Estimate log p(x) with K importance samples, for several K from one pass of weights.

    L_K = log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x) is, in expectation, a lower bound on
    log p(x) that rises with K (Burda, Grosse and Salakhutdinov, "Importance Weighted
    Autoencoders", 2015, https://arxiv.org/abs/1509.00519). The largest K uses all weights. A
    smaller one is averaged over disjoint blocks of them, which keeps its expectation, lowers its
    variance, and by Jensen's inequality makes the curve rise for every image.

    Memory is that of one forward pass over `chunk` copies of the batch, for any K.

    Args:
        model: `(x, y) -> Terms`, which draws a new latent for every image in every call. If it has
            a method `draws(x, y, copies) -> Terms`, image by image, that is called instead of
            repeating x and y, so it can encode each image once.
        x: (B, C, H, W) levels.
        y: the annotation: None, a tensor (B, ...), or a tuple of those.
        ks: rising, each a multiple of the one before.
        chunk: number of weights per image that one forward pass draws.
        noise: `(first, num)` -> the model's argument `noise=`; see `evaluate`.

    Returns:
        (len(ks), B) float64 nats on the CPU: estimates of log p(x).

    >>> from eval import Terms
    >>> def model(x, y):  # log weights of standard normal draws around -2 nats
    ...     zeros = torch.zeros(len(x))
    ...     return Terms(zeros + 2.0, zeros, torch.randn(len(x)))
    >>> curve = importance_curve(model, torch.zeros(3, 1, 1, 1), None, (1, 10, 100))
    >>> curve.shape, bool((curve.diff(dim=0) > 0).all())
    (torch.Size([3, 3]), True)
    """
    _check_ks(ks, chunk)
    size = len(x)
    totals = torch.zeros(len(ks), size, dtype=torch.float64)
    blocks = torch.full((len(ks), size), -math.inf, dtype=torch.float64)
    drawn = 0
    with scoring(model):
        while drawn < ks[-1]:
            copies = min(chunk, ks[-1] - drawn)
            given = {} if noise is None else {"noise": noise(drawn, copies)}
            terms = call(model, x, y, copies, **given)
            weights = double(terms.log_weight - terms.distortion)
            for weight in rearrange(weights, "(n copy) -> copy n", copy=copies):
                drawn += 1
                _carry(blocks, totals, weight, drawn, ks)
    return totals / torch.tensor([[ks[-1] // k] for k in ks])


def _carry(blocks: Tensor, totals: Tensor, weight: Tensor, drawn: int, ks: Sequence[int]) -> None:
    """Add a weight to the smallest block; add a full block to the totals and to the next block."""
    for level, k in enumerate(ks):
        blocks[level] = torch.logaddexp(blocks[level], weight)
        if drawn % k:
            return
        weight = blocks[level].clone()
        totals[level] += weight - math.log(k)
        blocks[level] = -math.inf


def importance_weighted(model: Model, x: Tensor, y: Any, k: int, *, chunk: int = 10) -> Tensor:
    """Estimate log p(x) with K importance samples: (B,) float64 nats; see `importance_curve`.

    >>> from eval import Terms
    >>> def sure(x, y):  # no latent: every weight is p(x), and K changes nothing
    ...     zeros = torch.zeros(len(x))
    ...     return Terms(zeros + 2.0, zeros, zeros)
    >>> importance_weighted(sure, torch.zeros(1, 1, 1, 1), None, k=7, chunk=3).tolist()
    [-2.0]
    """
    return importance_curve(model, x, y, (k,), chunk=chunk)[0]


def evaluate_importance(
    model: Model,
    batches: Batches,
    count: int,
    ks: Sequence[int] = (1, 10, 100, 1000),
    *,
    chunk: int = 10,
    noise: Noise | None = None,
    reduce: Reduce = alone,
) -> dict[int, Score]:
    """Score a whole set by importance weighting: an NLL estimate in nats per image for each K.

    The arguments are those of `evaluate` and `importance_curve`. The scores can be compared image
    by image, since they come from the same weights.

    >>> from eval import Terms
    >>> def sure(x, y):  # no latent: every weight is p(x), and K changes nothing
    ...     zeros = torch.zeros(len(x))
    ...     return Terms(zeros + 2.0, zeros, zeros)
    >>> scores = evaluate_importance(sure, [([0, 1], (torch.zeros(2, 1, 1, 1), None))], 2, (1, 10))
    >>> {k: score.mean for k, score in scores.items()}
    {1: 2.0, 10: 2.0}
    """
    _check_ks(ks, chunk)
    table = PerImage(len(ks), count)
    for indices, (x, y) in batches:
        own = None if noise is None else partial(noise, indices)
        table.put(indices, -importance_curve(model, x, y, ks, chunk=chunk, noise=own))
    values = table.gather(reduce)
    return {k: Score(row) for k, row in zip(ks, values, strict=True)}
