"""Lossless coding by the raster scan: images to bits and back, sub-pixel by sub-pixel.

    x ─ Encode ─┐                      ┌─ coder: bits
                ├─ scan ─ params ─ p ──┤
    x ─ Decode ─┘                      └─ coder: bits

A coder spends -log2 p bits on a sub-pixel of probability p, so that a file is as long as the
images' negative log-likelihood. Encoder and decoder must see the same p to the last bit that
counts, hence both compute it by the same scan of the same batch shape: the parameters that a whole
image at once (teacher forcing) yields differ from the scan's in their last digits, and a decoder
can't have them. The last batch is therefore padded with zero images, which are not coded.

Source of the coders: Bamler: Understanding Entropy Coding With Asymmetric Numeral Systems (ANS): a
Statistician's Perspective (2022), https://arxiv.org/abs/2201.01741; package `constriction`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from decoders.arguments import NonFiniteError, check_finite
from decoders.base import Decoder, ShowRows
from decoders.factorized import factorized
from decoders.likelihoods import Discrete
from decoders.scan import Chooser, evaluating, run

_stream: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]
RangeEncoder: Callable[..., Any] = _stream.queue.RangeEncoder
RangeDecoder: Callable[..., Any] = _stream.queue.RangeDecoder
AnsCoder: Callable[..., Any] = _stream.stack.AnsCoder
entropy_models: Any = _stream.model

# `perfect=False` rounds probabilities to 24 bits at once; optimal rounding is far slower and gains
# nothing that shows. No symbol's probability is rounded to zero, so that one of less than 2**-24
# costs 24 bits: a file is shorter than the negative log-likelihood where a model is that surprised.
_TABLE = entropy_models.Categorical(perfect=False)

SMALLEST = 1e-12
"""A probability that underflows is raised to this, long before the coder's own rounding."""


def encode(
    decoder: Decoder,
    x: Tensor,
    coder: Any,
    h: Tensor | None = None,
    *,
    batch: int | None = None,
    progress: ShowRows | None = None,
) -> None:
    """Append images to a `RangeEncoder`.

    Args:
        decoder: p(x | h), over integer levels.
        x: (B, C, H, W) levels.
        coder: a `RangeEncoder`.
        h: (B, *cond_shape), the very numbers that decoding will be given, or None.
        batch: number of images in the scan, at least B; decode with the same. B unless given.
        progress: wraps the loop over rows.

    Raises:
        ValueError: x or h doesn't fit the decoder; a CodingError where it yields NaN.
        TypeError: the decoder's x is continuous, or the decoder is not a `FactorizedDecoder`.

    >>> from decoders import GatedPixelCNN
    >>> decoder = GatedPixelCNN((1, 4, 4), num_levels=4, num_layers=1, hidden_channels=8)
    >>> x, coder = decoder.sample(num=3), RangeEncoder()
    >>> encode(decoder, x, coder)
    >>> back = decode(decoder, 3, RangeDecoder(coder.get_compressed()))
    >>> torch.equal(back, x)
    True
    """
    decoder.check_image(x)
    batch = len(x) if batch is None else batch
    _scan(decoder, _Encode(_likelihood(decoder), x, coder), h, batch, len(x), progress)


def decode(
    decoder: Decoder,
    num: int,
    coder: Any,
    h: Tensor | None = None,
    *,
    batch: int | None = None,
    progress: ShowRows | None = None,
) -> Tensor:
    """Read images from a `RangeDecoder`, or pop them from an `AnsCoder`; the inverse of `encode`.

    Args:
        decoder: as in encoding.
        num: number of images, B.
        coder: a `RangeDecoder`, or an `AnsCoder` that `push` filled.
        h: as in encoding.
        batch: as in encoding.
        progress: wraps the loop over rows.

    Returns:
        (B, C, H, W) levels.

    Raises:
        CodingError: the bits are not of this decoder.
    """
    batch = num if batch is None else batch
    return _scan(decoder, _Decode(_likelihood(decoder), num, coder), h, batch, num, progress)


def push(
    decoder: Decoder,
    x: Tensor,
    coder: Any,
    h: Tensor | None = None,
    *,
    batch: int | None = None,
    progress: ShowRows | None = None,
) -> None:
    """Push images onto an `AnsCoder`, a stack: the last sub-pixel first, for `decode` to pop.

    It holds the probabilities of all levels of all sub-pixels of the batch, 8 bytes each.
    Arguments as in `encode`.
    """
    decoder.check_image(x)
    batch = len(x) if batch is None else batch
    tape = _Tape()
    _scan(decoder, _Encode(_likelihood(decoder), x, tape), h, batch, len(x), progress)
    for symbols, table in reversed(tape.entries):
        coder.encode_reverse(symbols, _TABLE, table)


class CodingError(ValueError):
    """Bits that were not written by this decoder, or a decoder that yields NaN."""


class _Tape:
    """A coder that keeps symbols and tables, to be coded later."""

    def __init__(self) -> None:
        self.entries: list[tuple[np.ndarray, np.ndarray]] = []

    def encode(self, symbols: np.ndarray, _: Any, table: np.ndarray) -> None:
        self.entries.append((symbols, table))


class _Encode(Chooser):
    """A chooser that takes the values of the images, and codes them."""

    def __init__(self, likelihood: Discrete, x: Tensor, coder: Any):
        self.likelihood, self.coder = likelihood, coder
        self.x = x.permute(2, 3, 1, 0).contiguous()  # (H, W, C, B)

    def __call__(self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int) -> Tensor:
        known = self.x[row, col, channel]
        table = _table(self.likelihood, params, pixel, channel, len(known))
        self.coder.encode(known.numpy().astype(np.int32), _TABLE, table)
        return _filled(known.long(), len(params))

    def defined(self, params: Tensor) -> Tensor:
        return self.likelihood.defined(params)


class _Decode(Chooser):
    """A chooser that reads the values from the bits."""

    def __init__(self, likelihood: Discrete, num: int, coder: Any):
        self.likelihood, self.num, self.coder = likelihood, num, coder

    def __call__(self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int) -> Tensor:
        table = _table(self.likelihood, params, pixel, channel, self.num)
        try:
            symbols = self.coder.decode(_TABLE, table)
        except Exception as error:  # of what kind is the coder's affair
            raise CodingError("the bits were not written by this decoder") from error
        return _filled(torch.from_numpy(symbols).long(), len(params))

    def defined(self, params: Tensor) -> Tensor:
        return self.likelihood.defined(params)


def _table(
    likelihood: Discrete, params: Tensor, pixel: Tensor, channel: int, num: int
) -> np.ndarray:
    """Return the probabilities (num, L) of one channel of the first `num` pixels, float64."""
    log_probs = likelihood.level_log_probs(params.double(), pixel, channel)
    table = torch.exp(log_probs[:num]).clamp_min(SMALLEST).numpy()
    if not np.isfinite(table).all():
        raise CodingError("expected finite probabilities to code with, got NaN: the model diverged")
    return table


def _filled(values: Tensor, batch: int) -> Tensor:
    """Return values (n, …) followed by zeros up to (batch, …)."""
    if len(values) == batch:
        return values
    return torch.cat([values, values.new_zeros(batch - len(values), *values.shape[1:])])


@torch.no_grad()
def _scan(
    decoder: Decoder,
    choose: Chooser,
    h: Tensor | None,
    batch: int,
    num: int,
    progress: ShowRows | None,
) -> Tensor:
    """Code or decode images by one path, and return the first `num`."""
    if not 1 <= num <= batch:
        raise ValueError(f"expected 1 to {batch} images in a batch of {batch}, got {num}")
    if next(decoder.parameters()).device.type != "cpu":
        raise ValueError("expected a decoder on the CPU: elsewhere a sum's last digits may vary")
    decoder.check_cond(h, num)
    h = None if h is None else _filled(h, batch)
    try:
        check_finite(h)
        with evaluating(decoder):
            scan = factorized(decoder, "to code with").begin_scan(h, batch)
            x = run(scan, choose, decoder.image_shape, batch, decoder.dtype, progress)
    except NonFiniteError as error:
        raise CodingError(str(error)) from error
    return x[:num]


def _likelihood(decoder: Decoder) -> Discrete:
    likelihood = factorized(decoder, "to code with").likelihood
    if not isinstance(likelihood, Discrete):
        raise TypeError(f"expected a decoder of integer levels to code with, got {decoder.dtype}")
    return likelihood
