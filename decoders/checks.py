"""Proof of the masks: causality and receptive field of any `FactorizedDecoder`.

A mask proven by its shape proves nothing: what counts is which sub-pixels of x the distribution of
each sub-pixel depends on. Levels have no gradient, so each is changed in turn and the distributions
are compared bit for bit, for a decoder of this package or a user's own.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from decoders.arguments import shown
from decoders.base import Decoder
from decoders.factorized import FactorizedDecoder, factorized
from decoders.heads import PixelEmbedding
from decoders.likelihoods import Discrete, Likelihood
from decoders.scan import check_defined

BATCH = 64


class SubPixel(NamedTuple):
    """Place of a sub-pixel; tuples compare in raster order."""

    row: int
    col: int
    channel: int


def dependence(
    decoder: Decoder,
    h: Tensor | None = None,
    *,
    targets: list[SubPixel] | None = None,
    trials: int = 2,
    seed: int = 0,
) -> Tensor:
    """Measure how much the distribution of each target sub-pixel depends on each sub-pixel of x.

    Each sub-pixel of random images is changed in turn, and the distribution of every target
    compared, bit for bit, in float64 and evaluation mode.

    Args:
        decoder: any `FactorizedDecoder`.
        h: (1, *cond_shape), random unless given.
        targets: the sub-pixels whose distributions are looked at; all unless given.
        trials: how many random images; one may hide a dependence behind a dead ReLU.
        seed: of the random images and h.

    Returns:
        (targets, H, W, C) float64: the largest absolute change of the target's log-probabilities,
        or of its quantiles where x is continuous.

    Raises:
        ValueError: the decoder's parameters are not finite, so there is nothing to compare.
    """
    decoder = copy.deepcopy(factorized(decoder, "to measure")).double().eval().cpu()
    generator = torch.Generator().manual_seed(seed)
    if h is None and decoder.cond_shape:
        h = torch.randn(1, *decoder.cond_shape, generator=generator)
    h = None if h is None else h.double().cpu()
    channels, height, width = decoder.image_shape
    places = [
        SubPixel(i, j, c) for i in range(height) for j in range(width) for c in range(channels)
    ]
    targets = places if targets is None else targets
    changes = torch.zeros(len(targets), len(places), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(trials):
            x = _random_image(decoder, generator)
            trial = _changes(decoder, x, h, places, targets)
            changes = torch.maximum(changes, trial.t())
    return changes.reshape(len(targets), height, width, channels)


def check_causality(decoder: Decoder, h: Tensor | None = None) -> None:
    """Raise unless each sub-pixel's distribution depends on earlier sub-pixels alone.

    The order is (row, column, channel): R, then G, then B of a pixel. Done for every pair of
    sub-pixels, so use a small image: 9×9 takes seconds.

    Raises:
        AssertionError: naming the first sub-pixel that sees itself or a later one.
        ValueError: the decoder's parameters are not finite, which proves nothing.

    >>> from decoders import GatedPixelCNN
    >>> check_causality(GatedPixelCNN((1, 4, 4), num_levels=2, hidden_channels=8, num_layers=1))
    """
    sees = dependence(decoder, h) > 0
    count = sees.shape[0]
    flat = sees.reshape(count, count)
    leaks = flat & torch.ones_like(flat).triu()
    if leaks.any():
        target, source = (int(v) for v in leaks.nonzero()[0])
        raise AssertionError(
            f"the decoder is not causal: sub-pixel {_name(decoder.image_shape, target)} depends on "
            f"{_name(decoder.image_shape, source)}, which "
            f"{'is itself' if source == target else 'comes later'} in raster order"
        )


def receptive_field(
    decoder: Decoder, target: SubPixel | tuple[int, int, int] | None = None
) -> Tensor:
    """Return the sub-pixels that the distribution of one of them depends on.

    Args:
        decoder: any `FactorizedDecoder`.
        target: (row, column, channel); the last channel of the middle pixel unless given.

    Returns:
        (H, W, C) bool. A complete field is all of the rows above and all to the left; what a
        decoder never sees, in depth or by a wrong mask (the blind spot), is False.

    >>> from decoders import GatedPixelCNN
    >>> decoder = GatedPixelCNN((1, 3, 5), num_levels=2, hidden_channels=8, num_layers=2)
    >>> print(show_field(receptive_field(decoder, (1, 2, 0)), (1, 2, 0)))
    #####
    ##@..
    .....
    """
    channels, height, width = factorized(decoder, "to measure").image_shape
    if target is None:
        target = SubPixel(height // 2, width // 2, channels - 1)
    if not isinstance(target, tuple) or len(target) != 3:
        raise ValueError(f"expected a target (row, column, channel), got {shown(target)}")
    target = SubPixel(*target)
    if not (
        0 <= target.row < height and 0 <= target.col < width and 0 <= target.channel < channels
    ):
        raise ValueError(
            f"expected a target (row, column, channel) within ({height}, {width}, {channels}), "
            f"got {tuple(target)}"
        )
    return dependence(decoder, targets=[target])[0] > 0


def sensitivity(
    decoder: Decoder,
    x: Tensor,
    h: Tensor | None = None,
    *,
    pixel: tuple[int, int] | None = None,
) -> Tensor:
    """Measure how strongly the log-probability of one pixel depends on each pixel of the image.

    The norm of its gradient with respect to what the pixels enter the network as, averaged over
    images: the effective receptive field, often much smaller than what `receptive_field` finds,
    from one pass backwards.

    Args:
        decoder: one whose pixels enter by a `PixelEmbedding`, as in all of this package.
        x: (B, C, H, W) levels.
        h: (B, *cond_shape).
        pixel: (row, column) of the one that is predicted; the middle one unless given.

    Returns:
        (H, W) float64, on the CPU; zero where the pixel is not seen.

    Raises:
        TypeError: the decoder has no `PixelEmbedding`.

    Source: Luo et al.: Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks (2016), https://arxiv.org/abs/1701.04128.

    >>> from decoders import GatedPixelCNN
    >>> _ = torch.manual_seed(0)
    >>> decoder = GatedPixelCNN((1, 3, 5), num_levels=2, hidden_channels=8, num_layers=2)
    >>> x = torch.randint(2, (16, 1, 3, 5), dtype=torch.uint8)
    >>> (sensitivity(decoder, x) > 0).int().tolist()
    [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    """
    decoder = copy.deepcopy(factorized(decoder, "to measure")).eval()
    embedding = pixel_embedding(decoder)
    if embedding is None:
        raise TypeError(
            f"expected a decoder with a PixelEmbedding, got {type(decoder).__name__}: "
            "receptive_field measures any decoder"
        )
    entered: list[Tensor] = []

    def enter(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        entered.append(embedded.detach().requires_grad_())
        return entered[-1]

    embedding.register_forward_hook(enter)
    _, height, width = decoder.image_shape
    row, col = (height // 2, width // 2) if pixel is None else pixel
    with torch.enable_grad():
        decoder.elementwise_log_prob(x, h)[..., row, col].sum().backward()
    gradient = entered[0].grad
    assert gradient is not None
    return gradient.cpu().double().norm(dim=1).mean(dim=0)


def pixel_embedding(decoder: nn.Module) -> PixelEmbedding | None:
    """Return the module through which pixels enter a decoder, for `sensitivity`, or None."""
    return next((part for part in decoder.modules() if isinstance(part, PixelEmbedding)), None)


def show_field(field: Tensor, target: tuple[int, int, int]) -> str:
    """Return a receptive field (H, W, C) as text: '#' seen, '.' not, '@' the target."""
    rows = []
    for i, row in enumerate(field.any(dim=-1).tolist()):
        marks = ["#" if seen else "." for seen in row]
        if i == target[0]:
            marks[target[1]] = "@"
        rows.append("".join(marks))
    return "\n".join(rows)


def _changes(
    decoder: FactorizedDecoder,
    x: Tensor,
    h: Tensor | None,
    places: list[SubPixel],
    targets: list[SubPixel],
) -> Tensor:
    """Return (places, targets): the change of each target's distribution with each place of x."""
    many = None if h is None else h.expand(BATCH, *h.shape[1:])
    # All batches have one shape, so that what doesn't depend is equal to the last bit.
    before = _distributions(decoder, x.repeat(BATCH, 1, 1, 1), many, targets)
    changes = []
    for start in range(0, len(places), BATCH):
        part = places[start : start + BATCH]
        changed = x.repeat(BATCH, 1, 1, 1)
        for n, (row, col, channel) in enumerate(part):
            changed[n, channel, row, col] = _another(decoder, x[0, channel, row, col])
        after = _distributions(decoder, changed, many, targets)
        # Equal infinities, as of levels ruled out, have not changed; their difference is NaN.
        change = torch.where(after == before, 0.0, (after - before).abs())
        changes.append(change[: len(part)].amax(dim=-1))
    return torch.cat(changes)


def _distributions(
    decoder: FactorizedDecoder, x: Tensor, h: Tensor | None, targets: list[SubPixel]
) -> Tensor:
    """Return the distribution of each target as N numbers to compare, (B, targets, N)."""
    params = decoder.params(x, h)
    check_defined(decoder.likelihood.defined(params))
    rows = torch.tensor([t.row for t in targets])
    cols = torch.tensor([t.col for t in targets])
    params = params[:, :, rows, cols]  # (B, P, targets)
    pixels = x[:, :, rows, cols]
    channels = torch.tensor([t.channel for t in targets])
    size = decoder.likelihood.num_levels or len(_QUANTILES)
    out = params.new_zeros(len(x), len(targets), size)
    for channel in channels.unique().tolist():
        chosen = channels == channel
        own = params[..., chosen], pixels[..., chosen], channel
        out[:, chosen] = _distribution(decoder.likelihood, *own).transpose(1, 2)
    return out


_QUANTILES = (0.1, 0.5, 0.9)


def _distribution(likelihood: Likelihood, params: Tensor, x: Tensor, channel: int) -> Tensor:
    """Return the log-probabilities of one channel's levels, or quantiles of continuous values."""
    if isinstance(likelihood, Discrete):
        return likelihood.level_log_probs(params, x, channel)
    drawn = [
        likelihood.sample(params, x, channel, torch.full_like(params[:, 0], quantile))
        for quantile in _QUANTILES
    ]
    return torch.stack(drawn, dim=1)


def _random_image(decoder: FactorizedDecoder, generator: torch.Generator) -> Tensor:
    shape = (1, *decoder.image_shape)
    if decoder.num_levels is None:
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.randint(decoder.num_levels, shape, generator=generator).to(decoder.dtype)


def _another(decoder: FactorizedDecoder, value: Tensor) -> Tensor:
    """Return another value: half-way around the levels."""
    if decoder.num_levels is None:
        return value + 1
    return ((value.long() + max(1, decoder.num_levels // 2)) % decoder.num_levels).to(value.dtype)


def _name(image_shape: tuple[int, int, int], index: int) -> str:
    channels, _, width = image_shape
    row, col, channel = index // (width * channels), index // channels % width, index % channels
    return f"(row {row}, column {col}, channel {channel})"
