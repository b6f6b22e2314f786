"""Negative log-likelihoods of a whole set: exact values, bounds, importance-weighted estimates.

The flow: `(indices, (x, y))` batches -> `model(x, y)` -> `Terms` in nats, one number per image ->
float64 per-image arrays in the order of the set -> `Score` (mean and standard error).

Every image is scored exactly once or an error says which was not. Nothing here knows a network,
a data set or a launcher: the model is a callable, and what several processes computed is added
by a `reduce` callable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eval.mode import scoring

MAX_LEVELS = 8  # of latents; a fixed width lets a process without a batch join the reduction


class Terms(NamedTuple):
    """What a model says of a batch of B images, in nats, one number per image.

    The negative log-likelihood (or its bound, the negative ELBO) is `distortion + rate`;
    the log importance weight of the drawn latent is `log_weight - distortion`.

    Attributes:
        distortion: (B,), -log p(x | h).
        rate: (B,), KL(q(z | x) || p(z)) summed over levels and dimensions; zeros without latents.
        log_weight: (B,), log p(z) - log q(z | x) at the drawn z; zeros without latents.
        kl: per latent level, top first, (B, D_level); `rate` is their sum.
    """

    distortion: Tensor
    rate: Tensor
    log_weight: Tensor
    kl: tuple[Tensor, ...] = ()


Model = Callable[..., Terms]  # (x, y), and noise=… where it is given
Batches = Iterable[tuple[Any, tuple[Tensor, Any]]]
Reduce = Callable[[Tensor], Tensor]
# (indices, first, num) -> noise of the draws first ... first + num - 1 of each image
Noise = Callable[[Any, int, int], Any]


def alone(tensor: Tensor) -> Tensor:
    """Return the tensor: the sum over the processes of a run that has only one."""
    return tensor


def bits_per_dim(nats: float, dims: int) -> float:
    """Convert nats per image to bits per dimension (sub-pixel): nats / (dims · ln 2).

    >>> round(bits_per_dim(79.02, 28 * 28), 4)
    0.1454
    """
    if dims < 1:
        raise ValueError(f"an image has at least one dimension (C·H·W), got dims={dims}")
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
        """How many images were scored."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Nats per image."""
        return float(self.values.sum() / self.count)

    @property
    def stderr(self) -> float:
        """Standard error of the mean in nats; NaN for a single image."""
        if self.count < 2:
            return math.nan
        return float(self.values.std(ddof=1) / math.sqrt(self.count))


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on a whole set: `nll = distortion + rate`, image by image."""

    distortion: Score
    rate: Score
    kl: tuple[np.ndarray, ...]  # per level, top first: (D_level,) mean nats per dimension
    dims: int  # C·H·W of an image

    @property
    def nll(self) -> Score:
        """The negative log-likelihood, or the negative ELBO where the model has latents."""
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


class NonFiniteScoreError(ValueError):
    """An image scored a number that is none, so that no mean over the set would mean anything."""


def _terms(model: Model, x: Tensor, y: Any, copies: int = 1, **noise: Any) -> Terms:
    """Call the model without autocast and check that it answered with full-precision numbers.

    They are B, or B times as many copies, image by image, each with a latent of its own.
    """
    count = len(x) * copies
    own = getattr(model, "draws", None)
    with torch.autocast(x.device.type, enabled=False):
        if copies == 1:
            terms = model(x, y, **noise)
        elif own is not None:
            terms = own(x, y, copies, **noise)
        else:
            terms = model(x.repeat_interleave(copies, dim=0), _repeat(y, copies), **noise)
    for name in ("distortion", "rate", "log_weight"):
        value = getattr(terms, name)
        if value.shape != (count,):
            raise ValueError(
                f"the model's {name} must hold one number per image, shape ({count},), "
                f"got {tuple(value.shape)}: sum over pixels or latent dimensions, not over images"
            )
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the model's {name} must be float32 or float64, got {value.dtype}: "
                "half precision flatters likelihoods, compute them in float32"
            )
    return terms


def _double(tensor: Tensor) -> Tensor:
    # Move first: some accelerators have no float64.
    return tensor.detach().cpu().double()


class _Table:
    """Per-image numbers of the whole set, filled by position and added over processes.

    Each process leaves zeros where it scored nothing, so that the sum is the gathered table and
    every mean is taken in the order of the set, however many processes shared the work.
    """

    def __init__(self, rows: int, count: int):
        if count < 1:
            raise ValueError(f"a set to score holds at least one image, got count={count}")
        self.values = torch.zeros(rows, count, dtype=torch.float64)
        self.visits = torch.zeros(count, dtype=torch.float64)

    def put(self, indices: Any, values: Tensor) -> None:
        where = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        count = len(self.visits)
        if where.shape != values.shape[1:]:
            raise ValueError(f"{values.shape[1]} images came with {where.numel()} indices")
        if len(where) and (int(where.min()) < 0 or int(where.max()) >= count):
            raise ValueError(
                f"indices must lie in 0..{count - 1}, got {int(where.min())}..{int(where.max())}"
            )
        self.visits.index_add_(0, where, torch.ones(len(where), dtype=torch.float64))
        self.values[:, where] = _double(values)

    def gather(self, reduce: Reduce) -> np.ndarray:
        """Return (rows, count) after checking that every image was scored once, and finitely."""
        visits = reduce(self.visits).numpy()
        values = reduce(self.values).numpy()
        if (visits != 1).any():
            position = int(np.flatnonzero(visits != 1)[0])
            raise ValueError(
                f"each of the {len(visits)} images must be scored exactly once, but image "
                f"{position} was scored {int(visits[position])} times "
                f"({int((visits != 1).sum())} images in all are missing or repeated)"
            )
        if not np.isfinite(values).all():
            position = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
            raise NonFiniteScoreError(
                f"image {position} scored {values[:, position].tolist()} nats: a mean over the set "
                "would mean nothing (did training diverge?)"
            )
        return values


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
        model: `(x, y) -> Terms`. A module is put into eval mode; hand over the unwrapped one.
        batches: `(indices, (x, y))`, where `indices` (B,) are the images' positions in the set.
            Processes may share the set in any way, and one may have no batch at all.
        count: how many images the set holds.
        noise: `(indices, first, num)` -> what the model is called with as `noise=`, for the draws
            first ... first + num - 1 of each image's latents, image by image. Where that is a
            function of the image alone, so is its score, however the images are batched. Without
            it the model draws latents as it pleases.
        reduce: sums a float64 CPU tensor over the processes; needed only if there are several.

    Raises:
        ValueError: an image was missed or repeated.
        NonFiniteScoreError: one scored non-finitely, in whatever process.

    >>> x = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    >>> def uniform(x, y):  # two levels: one bit per pixel
    ...     zeros = torch.zeros(len(x))
    ...     return Terms(zeros + 4 * math.log(2), zeros, zeros)
    >>> round(evaluate(uniform, [([0, 2], (x[:2], None)), ([1], (x[2:], None))], 3).bits_per_dim, 6)
    1.0
    """
    table = _Table(2, count)
    kl: list[Tensor] = []
    dims = 0
    with scoring(model):
        for indices, (x, y) in batches:
            terms = _terms(model, x, y, **_given(noise, indices, 0, 1))
            table.put(indices, torch.stack([terms.distortion, terms.rate]))
            sums = [_double(level).sum(0) for level in terms.kl]
            kl = [old + new for old, new in zip(kl, sums, strict=True)] if dims else sums
            dims = math.prod(x.shape[1:])
    dims, kl = _reduce_levels(dims, kl, reduce)
    distortion, rate = table.gather(reduce)
    return Evaluation(
        Score(distortion), Score(rate), tuple(level.numpy() / count for level in kl), dims
    )


def _given(noise: Noise | None, indices: Any, first: int, num: int) -> dict[str, Any]:
    """The model's keyword argument for these draws, if any."""
    return {} if noise is None else {"noise": noise(indices, first, num)}


def _reduce_levels(dims: int, kl: list[Tensor], reduce: Reduce) -> tuple[int, list[Tensor]]:
    """Sum the per-dimension rates over processes, of which some may know no shapes."""
    if len(kl) > MAX_LEVELS:
        raise ValueError(f"at most {MAX_LEVELS} latent levels can be scored, got {len(kl)}")
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


def _repeat(y: Any, times: int) -> Any:
    if isinstance(y, tuple):
        return tuple(_repeat(part, times) for part in y)
    return None if y is None else y.repeat_interleave(times, dim=0)


def _check_ks(ks: Sequence[int], chunk: int) -> None:
    if not ks or min(ks) < 1 or chunk < 1:
        raise ValueError(
            f"importance weighting needs K and chunk of at least 1, got K={list(ks)}, chunk={chunk}"
        )
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

    L_K = log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x) is, in expectation, a lower bound of
    log p(x) that rises with K (Burda, Grosse and Salakhutdinov, "Importance Weighted
    Autoencoders", 2015, https://arxiv.org/abs/1509.00519). The largest K uses all weights; a
    smaller one is averaged over disjoint blocks of them, which keeps its expectation, lowers its
    variance, and by Jensen's inequality makes the curve rise for every single image.

    Memory is that of one forward pass over `chunk` copies of the batch, whatever K is.

    Args:
        model: `(x, y) -> Terms`, drawing a fresh latent for every image of every call. If it has a
            method `draws(x, y, copies) -> Terms`, image by image, that is called in place of
            repeating x and y: it can encode each image once.
        x: (B, C, H, W) levels.
        y: the annotation: None, a tensor (B, ...), or a tuple of those.
        ks: rising, each a multiple of the one before.
        chunk: how many weights of each image one forward pass draws.
        noise: `(first, num)` -> what the model is called with as `noise=`; see `evaluate`.

    Returns:
        (len(ks), B) float64 nats on the CPU: estimates of log p(x).
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
            terms = _terms(model, x, y, copies, **given)
            weights = _double(terms.log_weight - terms.distortion).view(size, copies)
            for weight in weights.unbind(1):
                drawn += 1
                _carry(blocks, totals, weight, drawn, ks)
    return totals / torch.tensor([[ks[-1] // k] for k in ks])


def _carry(blocks: Tensor, totals: Tensor, weight: Tensor, drawn: int, ks: Sequence[int]) -> None:
    """Add one weight to the smallest block; a block that is full counts, and joins the next one."""
    for level, k in enumerate(ks):
        blocks[level] = torch.logaddexp(blocks[level], weight)
        if drawn % k:
            return
        weight = blocks[level].clone()
        totals[level] += weight - math.log(k)
        blocks[level] = -math.inf


def importance_weighted(model: Model, x: Tensor, y: Any, k: int, *, chunk: int = 10) -> Tensor:
    """Estimate log p(x) with K importance samples: (B,) float64 nats; see `importance_curve`.

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
    """Score a whole set by importance weighting: for each K the NLL estimate in nats per image.

    Arguments as in `evaluate` and `importance_curve`. The scores are comparable image by image:
    they come from the same weights.
    """
    _check_ks(ks, chunk)
    table = _Table(len(ks), count)
    for indices, (x, y) in batches:
        own = None if noise is None else partial(noise, indices)
        table.put(indices, -importance_curve(model, x, y, ks, chunk=chunk, noise=own))
    values = table.gather(reduce)
    return {k: Score(row) for k, row in zip(ks, values, strict=True)}
