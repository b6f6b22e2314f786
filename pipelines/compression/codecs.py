"""Codecs: batches of images to words and back, for each kind of model; see `pipelines.compress`.

    exact         x by p(x)
    given label   the label, log2 K bits, then x by p(x | label)
    given code    the code in half precision, 16 bits per number, then x by p(x | that code)
    bits-back     z popped from the bits by q(z|x), x pushed by p(x | z), z pushed by p(z)

Bits-back coding spends -log2 p(x|z) p(z) bits and gets -log2 q(z|x) back: on average the bound. The
latents are on a grid (`latents`), so that popping and pushing are exact inverses. The first batch
needs bits to pop. They stay in the file and are left over at the end of decoding, which proves that
it was right.

Source: J. Townsend, T. Bird and D. Barber, "Practical Lossless Compression with Latent Variables
using Bits Back Coding", 2019, https://arxiv.org/abs/1901.04866.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoders import coding
from decoders.base import ShowRows
from encoders import Encoder
from pipelines.compression.container import Header
from pipelines.compression.latents import FirstGrid, Grid
from pipelines.model import Model
from pipelines.runtime.errors import UserError

GIVEN_LABEL, GIVEN_CODE = "given label", "given code"  # names of methods in a file's header

_HALF = coding.entropy_models.Uniform(2**16)

ReadBatch = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(first, end) -> the images and labels at first ... end - 1."""


class Encoded(NamedTuple):
    """Coded words, and the bits that the model assigns to all images together."""

    words: np.ndarray
    model_bits: float
    side_bits: float = 0.0  # of labels or codes; part of model_bits
    initial_words: int = 0
    grid: int = 0  # cells of the latents in a unit


Posterior = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation of the latents of a batch, (B * K,) float64 each."""


def method_of(model: Model, *, bits_back: bool) -> str:
    """Return the name of the method that a model is coded with.

    Raises:
        UserError: there is none.
    """
    encoder = model.encoder
    if encoder is not None and encoder.has_latents:
        if not bits_back:
            raise UserError(
                "this model has latent variables, so that it gives no p(x) to code with but a "
                "bound, which bits-back coding reaches: encode with --bits-back"
            )
        if not encoder.gaussian_latents or len(encoder.latent_shapes) != 1:
            raise UserError(
                "bits-back coding needs one level of latents (levels_of_latents=1), with a "
                f"Gaussian posterior; this model has a {type(encoder).__name__}: choose another run"
            )
        return "bits-back"
    if bits_back:
        raise UserError(
            f"--bits-back is for models with latent variables, this one is {model.kind!r}: "
            "leave it out"
        )
    if encoder is None:
        return "exact"
    if encoder.num_classes or encoder.reads_image:
        return GIVEN_LABEL if encoder.num_classes else GIVEN_CODE
    raise UserError(
        f"this model's images are coded {model.kind}, which would have to be in the file too: only "
        "labels and codes can be; take an unconditional run"
    )


@torch.no_grad()
def encode(model: Model, header: Header, read: ReadBatch, show: ShowRows | None) -> Encoded:
    """Encode the images that `read` returns, batch by batch."""
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
    """Yield the images, and labels if the file has them, batch by batch in their order.

    Raises:
        coding.CodingError: the bits are of another model, or of another machine's arithmetic.
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
    """Return the bounds of the batches of a file; an incomplete one is coded last."""
    count, size = header.count, header.batch
    first = (count % size or size) if header.method == "bits-back" else size
    bounds = [0, *range(first, count, size), count]
    return list(pairwise(bounds))


def _send(
    model: Model, method: str, x: Tensor, labels: Tensor | None, coder: Any
) -> tuple[Tensor | None, float]:
    """Encode what the images are given; return it as h, and its bits."""
    if method == "exact":
        return None, 0.0
    encoder = model.encoder
    assert encoder is not None
    if encoder.num_classes:
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
    """Decode what `_send` encoded; return h, and the labels."""
    if method == "exact":
        return None, None
    encoder = model.encoder
    assert encoder is not None
    if encoder.num_classes:
        labels = torch.zeros(num, dtype=torch.int64)
        if encoder.num_classes > 1:
            labels = torch.from_numpy(coder.decode(_uniform(encoder), num)).long()
        return encoder(None, labels).h, labels
    shape = (num, *encoder.code_shape)
    symbols = coder.decode(_HALF, math.prod(shape)).astype(np.uint16).view(np.int16)
    half = torch.from_numpy(symbols).view(torch.float16).view(shape)
    if not bool(half.isfinite().all()):
        raise coding.CodingError("the bits were not written by this model")
    return half.to(next(model.decoder.parameters()).dtype), None


def _uniform(encoder: Encoder) -> Any:
    return coding.entropy_models.Uniform(encoder.num_classes)


def _encode_bits_back(
    model: Model, header: Header, read: ReadBatch, show: ShowRows | None
) -> Encoded:
    bounds = spans(header)
    found = [_posterior(model, read(*span)[0], header.batch) for span in bounds]
    grid = Grid.fit(min(float(std.min()) for _, std in found))
    initial = 1
    while True:
        # On a stack the last batch goes in first, so that decoding begins with the first one.
        batches = zip(bounds[::-1], found[::-1], strict=True)
        encoded = _pushed(model, header, read, show, grid, batches, initial)
        if encoded is not None:
            return encoded
        initial += max(1, initial // 8)


def _pushed(
    model: Model,
    header: Header,
    read: ReadBatch,
    show: ShowRows | None,
    grid: Grid,
    batches: Iterable[tuple[tuple[int, int], Posterior]],
    initial: int,
) -> Encoded | None:
    """Push all images onto a stack of `initial` words; return None if these are too few.

    The first batch shows that, before much time is spent: each later one finds more bits on the
    stack than the one before.
    """
    coder = coding.AnsCoder(_initial(initial), seal=True)
    nats = 0.0
    for span, posterior in batches:
        x, _ = read(*span)
        cells = grid.posterior(*posterior).pop(coder)
        if coder.num_words() <= 2:  # popping an empty stack can't be undone
            return None
        h = _to_h(model, cells / grid.points, len(x))
        coding.push(model.decoder, x, coder, h, batch=header.batch, progress=show)
        grid.prior(len(cells)).push(coder, cells)
        nats -= float(model.decoder.log_prob(x, h).double().sum())
        nats += _rate(*grid.bounded(*posterior))
    return Encoded(coder.get_compressed(), nats / math.log(2), 0.0, initial, grid.points)


def _decode_bits_back(
    model: Model, header: Header, words: np.ndarray, show: ShowRows | None
) -> Iterator[tuple[Tensor, None]]:
    size = math.prod(model.latent_shapes[0])
    grid = Grid(header.grid) if header.grid else FirstGrid()
    coder = coding.AnsCoder(words)
    for start, end in spans(header):
        cells = grid.prior((end - start) * size).pop(coder)
        h = _to_h(model, cells / grid.points, end - start)
        x = coding.decode(model.decoder, end - start, coder, h, batch=header.batch, progress=show)
        posterior = _posterior(model, x, header.batch, float32=not header.grid)
        grid.posterior(*posterior).push(coder, cells)
        yield x, None
    try:
        left = coder.get_compressed(unseal=True)
    except AssertionError:  # not even the seal is there
        left = None
    if left is None or not np.array_equal(left, _initial(header.initial_words)):
        raise coding.CodingError("the bits that are left are not those that were there at first")


def _posterior(model: Model, x: Tensor, batch: int, *, float32: bool = False) -> Posterior:
    """Return a batch's posterior in the model's dtype (float32 for the first format version)."""
    assert model.encoder is not None
    filled = torch.cat([x, x.new_zeros(batch - len(x), *x.shape[1:])])  # one shape for all batches
    (posterior,) = model.encoder.posterior(filled)
    found = posterior.in_float32() if float32 else posterior
    if found.std is None:
        raise UserError(
            f"bits-back coding needs a Gaussian posterior, got a {type(posterior).__name__}: "
            "choose another run"
        )
    mean, std = (part[: len(x)].double().flatten().numpy() for part in (found.mean, found.std))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise coding.CodingError(
            "expected finite latents to code with, got NaN: the model diverged"
        )
    return mean, std


def _to_h(model: Model, z: np.ndarray, num: int) -> Tensor:
    assert model.encoder is not None
    latents = torch.from_numpy(z).view(num, *model.latent_shapes[0])
    return model.encoder.to_h((latents.to(next(model.decoder.parameters()).dtype),))


def _rate(mean: np.ndarray, std: np.ndarray) -> float:
    """Return KL(q(z|x) || p(z)) of the coded latents, in nats."""
    return float(((mean**2 + std**2 - 1) / 2 - np.log(std)).sum())


def _initial(words: int) -> np.ndarray:
    """Return arbitrary bits, the same every time."""
    return np.random.default_rng(0).integers(1, 2**32, words, dtype=np.uint32)
