"""The one raster scan: sampling, completion and coding are three uses of it.

A `Scan` visits the sub-pixels in the order (row, column, channel). It gives the parameters of the
next one and is told its value. `run` drives it; what becomes of the parameters is up to a chooser:
`Draw` samples, a coder encodes or decodes.

A scan with caches computes every activation once. What lies above a row is known before the row
begins, so that part is computed a row at a time (`RowCache`); what lies to the left is a window of
the row at hand, one matrix product for each sub-pixel and layer (`LeftWindow`). Each layer keeps
only the rows its kernel reaches.

Source of the idea: Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models
(2017), https://arxiv.org/abs/1704.06001.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.layers import AboveConv2d, LeftConv2d
from decoders.likelihoods import widest_float

if TYPE_CHECKING:
    from decoders.base import AutoregressiveDecoder
    from decoders.likelihoods import Likelihood


class Scan(ABC):
    """One pass over a batch of images in raster order."""

    @abstractmethod
    def params(self, row: int, col: int, channel: int) -> Tensor:
        """The parameters (B, P) of a pixel, right for this channel of it.

        They may lie in a buffer that the next call overwrites.
        """

    @abstractmethod
    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        """Take the values (B,) of the sub-pixel whose parameters were given last."""


class PlainScan(Scan):
    """A scan without caches: the whole network again for each sub-pixel. Right for any decoder."""

    def __init__(self, decoder: AutoregressiveDecoder, h: Tensor | None, num: int):
        self.decoder, self.h = decoder, h
        device = next(decoder.parameters()).device
        self.x = torch.zeros((num, *decoder.image_shape), dtype=decoder.dtype, device=device)

    def params(self, row: int, col: int, channel: int) -> Tensor:
        return self.decoder.params(self.x, self.h)[:, :, row, col]

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        self.x[:, channel, row, col] = values.to(self.x.dtype)


Chooser = Callable[[Tensor, Tensor, int, int, int], Tensor]
"""(params (B, P), pixel (B, C), row, col, channel) -> values (B,) of that sub-pixel."""


class Draw:
    """Chooses by sampling from the likelihood, except where the values are known."""

    def __init__(
        self,
        likelihood: Likelihood,
        noise: Tensor,
        temperature: float = 1.0,
        known: tuple[Tensor, Tensor] | None = None,
    ):
        self.likelihood, self.temperature, self.known = likelihood, temperature, known
        wide = widest_float(noise.device)
        self.noise = noise.to(wide).permute(2, 3, 1, 0).contiguous()  # (H, W, C, B)

    def __call__(self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int) -> Tensor:
        noise = self.noise[row, col, channel]
        values = self.likelihood.sample(params, pixel, channel, noise, self.temperature)
        if self.known is None:
            return values
        image, mask = (part[:, channel, row, col] for part in self.known)
        return torch.where(mask, image.to(values.dtype), values)


def run(
    scan: Scan,
    choose: Chooser,
    image_shape: tuple[int, int, int],
    num: int,
    dtype: torch.dtype,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> Tensor:
    """Scan `num` images, choosing the value of each sub-pixel; returns them, (B, C, H, W)."""
    channels, height, width = image_shape
    image = None
    for row in (progress or iter)(range(height)):
        for col in range(width):
            for channel in range(channels):
                params = scan.params(row, col, channel)
                if image is None:
                    shape = (height, width, num, channels)
                    image = torch.zeros(shape, dtype=dtype, device=params.device)
                pixel = image[row, col]
                values = choose(params, pixel, row, col, channel)
                pixel[:, channel] = values
                scan.push(row, col, channel, values)
    assert image is not None
    return image.permute(2, 3, 0, 1).contiguous()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode for a while: no dropout in a likelihood or a draw."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


SMALL_ROWS = 128  # pixels in a row of all images, up to which `RowConv` multiplies matrices


class RowConv:
    """A convolution of rows (B, in, R, W') with a kernel of height R: one output row.

    Few pixels are multiplied as one matrix, since a convolution's own preparations would take
    longer than its work.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach()
        self.matrix = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (R * k * in, out)

    def __call__(self, rows: Tensor) -> Tensor:
        """(B, in, R, W') -> (B, out, 1, W), channels last."""
        batch, width = rows.shape[0], rows.shape[3] - self.weight.shape[3] + 1
        if batch * width > SMALL_ROWS:
            return F.conv2d(rows, self.weight, self.bias)
        windows = rows.unfold(3, self.weight.shape[3], 1)  # (B, in, R, W, k)
        windows = windows.permute(0, 3, 2, 4, 1).reshape(batch * width, len(self.matrix))
        if self.bias is None:
            out = windows @ self.matrix
        else:
            out = torch.addmm(self.bias, windows, self.matrix)
        return out.view(batch, 1, width, -1).permute(0, 3, 1, 2)


class RowCache:
    """Computes an `AboveConv2d` one row at a time, from the rows its kernel reaches."""

    def __init__(self, conv: AboveConv2d, batch: int, width: int):
        self.conv = RowConv(conv.weight, conv.bias)
        self.reach = conv.reach
        shape = (batch, conv.weight.shape[1], conv.weight.shape[2], width + 2 * conv.reach)
        self.rows = torch.zeros(
            shape, dtype=conv.weight.dtype, device=conv.weight.device
        ).contiguous(memory_format=torch.channels_last)

    def push(self, row: Tensor) -> None:
        """Take the next row of the input, (B, in, 1, W)."""
        self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
        self.rows[:, :, -1:, self.reach : self.rows.shape[3] - self.reach] = row

    def output(self) -> Tensor:
        """The output row, (B, out, 1, W), that the pushed rows give."""
        return self.conv(self.rows)


class LeftWindow:
    """Computes a `LeftConv2d` one column and one channel group at a time, in preallocated rows.

    The current row of the input lies in a buffer (B, left + W, in) whose first columns are the
    zeros of the padding, so that the window a kernel sees is one strided matrix, without a copy,
    and only what a group may see is multiplied.

    Args:
        conv: the convolution.
        in_bounds: where the channel groups of the input begin and end.
        order: the order in which output channels are computed, group by group.
        out_bounds: where the groups of the output begin and end in that order.
        batch: B.
        width: W.
    """

    def __init__(
        self,
        conv: LeftConv2d,
        in_bounds: list[int],
        order: Tensor,
        out_bounds: list[int],
        batch: int,
        width: int,
    ):
        weight = conv.causal_weight().detach()[:, :, 0].transpose(1, 2)[order].flatten(1)
        channels, left = conv.in_channels, conv.left
        self.left = left
        self.buffer = weight.new_zeros(batch, left + width, channels)
        seen = [
            left * channels + (self._own(conv, in_bounds, group) if conv.sees_centre else 0)
            for group in range(len(out_bounds) - 1)
        ]
        self.weights = [
            weight[a:b, :size].t().contiguous()
            for size, (a, b) in zip(seen, pairwise(out_bounds), strict=True)
        ]
        row_stride = self.buffer.stride(0)
        self.windows = [
            [
                self.buffer.as_strided((batch, size), (row_stride, 1), col * channels)
                for size in seen
            ]
            for col in range(width)
        ]
        self.slots = [
            [self.buffer[:, left + col, a:b] for a, b in pairwise(in_bounds)]
            for col in range(width)
        ]

    @staticmethod
    def _own(conv: LeftConv2d, in_bounds: list[int], group: int) -> int:
        """How many input channels of its own pixel a group sees: those of the groups before."""
        if len(in_bounds) == 2:  # all channels at once, ordered by the zeros of the mask
            return in_bounds[1]
        return in_bounds[group if conv.mask_type == "A" else group + 1]
