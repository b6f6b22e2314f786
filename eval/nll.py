"""Negative log-likelihoods of a whole set: exact values and bounds.

`(indices, (x, y))` batches -> `model(x, y)` -> `Terms` in nats, one number per image -> float64
arrays in the order of the set -> `Score` (mean and standard error).

Every image is scored exactly once, or an error names one that was not. Nothing here depends on a
network, a data set or a launcher: the model is a callable, and a `reduce` callable sums the results
of several processes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eval.gather import PerImage, alone, double
from eval.mode import scoring
from eval.scores import Evaluation, Score
from eval.terms import Batches, Model, Noise, Reduce, call

MAX_LEVELS = 8  # of latents; the fixed width lets a process without a batch join the reduction


def evaluate(
    model: Model,
    batches: Batches,
    count: int,
    *,
    noise: Noise | None = None,
    reduce: Reduce = alone,
) -> Evaluation:
    """Score every image of a set once, in eval mode and float32, and sum in float64.

    Args:
        model: `(x, y) -> Terms`. A module is put into eval mode; pass the unwrapped one.
        batches: `(indices, (x, y))`, where `indices` (B,) are the images' positions in the set.
            Processes may share the set in any way, and some may have no batch.
        count: number of images in the set.
        noise: `(indices, first, num)` -> the model's argument `noise=`, for the draws
            first ... first + num - 1 of each image's latents, image by image. If it depends on the
            image alone, then so does the score, however the images are batched. Without it the
            model draws its own latents.
        reduce: sum of a float64 CPU tensor over the processes, needed only if there are several.

    Raises:
        ValueError: an image was missed or repeated.
        NonFiniteScoreError: an image's score is NaN or infinite, in any process.

    >>> from eval import Terms
    >>> x = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    >>> def uniform(x, y):  # two levels: one bit per pixel
    ...     zeros = torch.zeros(len(x))
    ...     return Terms(zeros + 4 * math.log(2), zeros, zeros)
    >>> round(evaluate(uniform, [([0, 2], (x[:2], None)), ([1], (x[2:], None))], 3).bits_per_dim, 6)
    1.0
    """
    table = PerImage(2, count)
    kl: list[Tensor] = []
    dims = 0
    with scoring(model):
        for indices, (x, y) in batches:
            terms = call(model, x, y, **_given(noise, indices, 0, 1))
            table.put(indices, torch.stack([terms.distortion, terms.rate]))
            sums = [double(level).sum(0) for level in terms.kl]
            kl = [old + new for old, new in zip(kl, sums, strict=True)] if dims else sums
            dims = math.prod(x.shape[1:])
    dims, kl = _reduce_levels(dims, kl, reduce)
    distortion, rate = table.gather(reduce)
    return Evaluation(
        Score(distortion), Score(rate), tuple(level.numpy() / count for level in kl), dims
    )


def _given(noise: Noise | None, indices: Any, first: int, num: int) -> dict[str, Any]:
    """Return the model's keyword argument for these draws, if there is noise."""
    return {} if noise is None else {"noise": noise(indices, first, num)}


def _reduce_levels(dims: int, kl: list[Tensor], reduce: Reduce) -> tuple[int, list[Tensor]]:
    """Sum the per-dimension rates over processes; one without a batch knows no shapes."""
    if len(kl) > MAX_LEVELS:
        raise ValueError(f"expected at most {MAX_LEVELS} latent levels, got {len(kl)}")
    header = torch.zeros(2 + MAX_LEVELS, dtype=torch.float64)
    if dims:
        header[0], header[1] = 1, dims
        for place, level in enumerate(kl):
            header[2 + place] = len(level)
    header = reduce(header)
    voters = max(1, int(header[0]))
    sizes = [int(size) // voters for size in header[2:].tolist() if size]
    own = kl if dims else [torch.zeros(size, dtype=torch.float64) for size in sizes]
    return int(header[1]) // voters, [reduce(level) for level in own]
