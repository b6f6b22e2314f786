"""How each kind of model turns batches of images into words and back; see `pipelines.compress`.

    exact         x by p(x)
    given label   the label, log2 K bits, then x by p(x | label)
    given code    the code in half precision, 16 bits a number, then x by p(x | that code)
    bits-back     z popped from the bits by q(z|x), x pushed by p(x | z), z pushed by p(z)

Bits-back coding spends -log2 p(x|z) p(z) bits and gets back -log2 q(z|x): on average the bound. The
latents are on a grid, so that popping and pushing are exact inverses. The first batch needs bits to
pop: they stay in the file, and decoding ends with them, which proves that nothing went wrong.

Source: Townsend, Bird, Barber: Practical Lossless Compression with Latent Variables using Bits Back
Coding (2019), https://arxiv.org/abs/1901.04866.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoders import coding
from decoders.base import ShowRows
from encoders import GaussianEncoder, LabelEmbedding
from pipelines.coding.container import Header
from pipelines.model import Model
from pipelines.runtime.errors import UserError

GRID = 256  # points of the latent grid in a unit
REACH = 16  # the grid ends this far from zero
_CELL = coding.entropy_models.QuantizedGaussian(-REACH * GRID, REACH * GRID)
_HALF = coding.entropy_models.Uniform(2**16)

ReadBatch = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(first, end) -> images and labels of these numbers."""


class Encoded(NamedTuple):
    """Words, and what the model says that they should be: bits of all images together."""

    words: np.ndarray
    model_bits: float
    side_bits: float = 0.0  # of labels or codes; part of model_bits
    initial_words: int = 0


def method_of(model: Model, *, bits_back: bool) -> str:
    """Which of the methods a model is coded with.

    Raises:
        UserError: none; the sentence says why and what to do.
    """
    encoder = model.encoder
    if model.kind == "bound":
        if not bits_back:
            raise UserError(
                "this model has latent variables, so that it gives no p(x) to code with but a "
                "bound, which bits-back coding reaches: encode with --bits-back"
            )
        if not isinstance(encoder, GaussianEncoder):
            raise UserError(
                "bits-back coding is there for one level of latents (levels_of_latents=1), this "
                f"model has a {type(encoder).__name__}: take another run"
            )
        return "bits-back"
    if bits_back:
        raise UserError(
            f"--bits-back is for models with latent variables, this one is {model.kind!r}: "
            "leave it out"
        )
    if encoder is None:
        return "exact"
    if isinstance(encoder, LabelEmbedding) or model.kind == "given code":
        return model.kind
    raise UserError(
        f"this model's images are coded {model.kind}, which would have to be in the file too: only "
        "labels and codes can be; take an unconditional run"
    )


@torch.no_grad()
def encode(model: Model, header: Header, read: ReadBatch, show: ShowRows | None) -> Encoded:
    """Code the images that `read` gives, batch by batch."""
    if header.method == "bits-back":
        return _encode_bits_back(model, header, read, show)
    coder, nats, side = coding.RangeEncoder(), 0.0, 0.0
    for start, end in spans(header):
        x, labels = read(start, end)
        h, bits = _send(model, header.method, x, labels, coder)
        coding.encode(model.decoder, x, coder, h, batch=header.batch, progress=show)
        nats -= float(model.decoder.log_prob(x, h).double().sum())
        side += bits
    return Encoded(coder.get_compressed(), nats / math.log(2) + side, side)


@torch.no_grad()
def decode(
    model: Model, header: Header, words: np.ndarray, show: ShowRows | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The images, and the labels where the file has them, batch by batch in their order.

    Raises:
        coding.CodingError: the bits are not this model's, in this machine's arithmetic.
    """
    if header.method == "bits-back":
        yield from _decode_bits_back(model, header, words, show)
        return
    coder = coding.RangeDecoder(words)
    for start, end in spans(header):
        h, labels = _receive(model, header.method, end - start, coder)
        yield (
            coding.decode(model.decoder, end - start, coder, h, batch=header.batch, progress=show),
            labels,
        )


def spans(header: Header) -> list[tuple[int, int]]:
    """Where the batches of a file begin and end; an incomplete one is coded last."""
    count, size = header.count, header.batch
    first = (count % size or size) if header.method == "bits-back" else size
    bounds = [0, *range(first, count, size), count]
    return list(pairwise(bounds))


def _send(
    model: Model, method: str, x: Tensor, labels: Tensor | None, coder: Any
) -> tuple[Tensor | None, float]:
    """Code what the images are given; returns it as h, and its bits."""
    if method == "exact":
        return None, 0.0
    encoder = model.encoder
    assert encoder is not None
    if isinstance(encoder, LabelEmbedding):
        assert labels is not None
        if encoder.num_classes > 1:
            coder.encode(labels.numpy().astype(np.int32), _uniform(encoder))
        return encoder(None, labels).h, len(x) * math.log2(encoder.num_classes)
    exact = encoder(x).h
    half = exact.half()
    if not bool(half.isfinite().all()):
        raise UserError(
            "this model's codes are too large for half precision (above 65,504), in which they "
            "are stored: take another run"
        )
    symbols = half.flatten().view(torch.int16).numpy().astype(np.int32) & 0xFFFF
    coder.encode(symbols, _HALF)
    return half.to(exact.dtype), 16.0 * half.numel()


def _receive(
    model: Model, method: str, num: int, coder: Any
) -> tuple[Tensor | None, Tensor | None]:
    """What `_send` coded: h, and the labels."""
    if method == "exact":
        return None, None
    encoder = model.encoder
    assert encoder is not None
    if isinstance(encoder, LabelEmbedding):
        labels = torch.zeros(num, dtype=torch.int64)
        if encoder.num_classes > 1:
            labels = torch.from_numpy(coder.decode(_uniform(encoder), num)).long()
        return encoder(None, labels).h, labels
    shape = (num, *encoder.code_shape)
    symbols = coder.decode(_HALF, math.prod(shape)).astype(np.uint16).view(np.int16)
    half = torch.from_numpy(symbols).view(torch.float16).view(shape)
    return half.to(next(model.decoder.parameters()).dtype), None


def _uniform(encoder: LabelEmbedding) -> Any:
    return coding.entropy_models.Uniform(encoder.num_classes)


def _encode_bits_back(
    model: Model, header: Header, read: ReadBatch, show: ShowRows | None
) -> Encoded:
    initial = 1
    while True:
        encoded = _pushed(model, header, read, show, initial)
        if encoded is not None:
            return encoded
        initial += max(1, initial // 8)


def _pushed(
    model: Model, header: Header, read: ReadBatch, show: ShowRows | None, initial: int
) -> Encoded | None:
    """All images on a stack that began with so many words; None if these don't suffice.

    That turns out at the first batch, before anything costs time, since every later one finds more
    bits than the one before.
    """
    coder = coding.AnsCoder(_initial(initial), seal=True)
    nats = 0.0
    # On a stack the last batch goes in first, so that decoding begins with the first one.
    for start, end in spans(header)[::-1]:
        x, _ = read(start, end)
        mean, std = _posterior(model, x, header.batch)
        cells = coder.decode(_CELL, mean, std)
        if coder.num_words() <= 2:  # popping more than there is can't be undone
            return None
        h = _to_h(model, cells, len(x))
        coding.push(model.decoder, x, coder, h, batch=header.batch, progress=show)
        coder.encode_reverse(cells, _CELL, *_prior(cells))
        nats -= float(model.decoder.log_prob(x, h).double().sum()) - _rate(mean, std)
    return Encoded(coder.get_compressed(), nats / math.log(2), 0.0, initial)


def _decode_bits_back(
    model: Model, header: Header, words: np.ndarray, show: ShowRows | None
) -> Iterator[tuple[Tensor, None]]:
    assert isinstance(model.encoder, GaussianEncoder)
    coder = coding.AnsCoder(words)
    for start, end in spans(header):
        flat = np.zeros((end - start) * model.encoder.latent_dim)
        cells = coder.decode(_CELL, *_prior(flat))
        h = _to_h(model, cells, end - start)
        x = coding.decode(model.decoder, end - start, coder, h, batch=header.batch, progress=show)
        coder.encode_reverse(cells, _CELL, *_posterior(model, x, header.batch))
        yield x, None
    try:
        left = coder.get_compressed(unseal=True)
    except AssertionError:  # not even the seal is there
        left = None
    if left is None or not np.array_equal(left, _initial(header.initial_words)):
        raise coding.CodingError("the bits that are left are not those that were there at first")


def _posterior(model: Model, x: Tensor, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of q(z|x) in cells of the grid, (B * K,) float64 each."""
    assert model.encoder is not None
    filled = torch.cat([x, x.new_zeros(batch - len(x), *x.shape[1:])])  # one shape for all batches
    mean, std = (part[: len(x)].double() for part in model.encoder.posterior(filled)[0])
    mean = mean.clamp(-REACH, REACH).flatten() * GRID
    std = std.clamp(1 / GRID, REACH).flatten() * GRID
    return mean.numpy(), std.numpy()


def _prior(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(cells)), np.full(len(cells), float(GRID))


def _to_h(model: Model, cells: np.ndarray, num: int) -> Tensor:
    assert model.encoder is not None
    z = torch.from_numpy(cells.astype(np.float64) / GRID).view(num, -1)
    return model.encoder.to_h((z.to(next(model.decoder.parameters()).dtype),))


def _rate(mean: np.ndarray, std: np.ndarray) -> float:
    """KL(q(z|x) || p(z)) of what is coded, in nats."""
    mean, std = mean / GRID, std / GRID
    return float(((mean**2 + std**2 - 1) / 2 - np.log(std)).sum())


def _initial(words: int) -> np.ndarray:
    """Arbitrary bits, the same each time."""
    return np.random.default_rng(0).integers(1, 2**32, words, dtype=np.uint32)
