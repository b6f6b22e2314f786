"""Cached scan of a network of embedding, trunk and head: each activation is computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from decoders.heads import HeadScan, PixelEmbedding, PixelHead
from decoders.scan import Scan


class TrunkScan(ABC):
    """A trunk computed in raster order, from the embedded sub-pixels before the current one.

    Attributes:
        row_period: the `row_period` of the scan.
        groups: channel groups of the features. `features` is called for each of them, since a
            group sees the channels before it; 1 where the features see earlier pixels alone.
        pixels: for each column, the place (B, C · D) of an embedded pixel of the current row. The
            scan writes each channel there once its value is known.
    """

    row_period = 1
    groups: int
    pixels: list[Tensor]

    @abstractmethod
    def begin_row(self, row: int) -> None:
        """Do what a row needs before its first pixel."""

    @abstractmethod
    def features(self, row: int, col: int, group: int) -> Tensor:
        """Return the features (B, F) of a pixel after a ReLU, right up to `group`.

        They may be in a buffer that the next call overwrites.
        """


class NetworkScan(Scan):
    """One pass in raster order.

    Args:
        embed: turns levels into the trunk's input.
        trunk: the scan of the trunk.
        head: turns the trunk's features into parameters.
        h: the conditioning, a map at the image's size.
    """

    def __init__(self, embed: PixelEmbedding, trunk: TrunkScan, head: PixelHead, h: Tensor | None):
        self.row_period = trunk.row_period
        self.embed, self.trunk = embed, trunk
        self.pixels = trunk.pixels
        self.inputs = [pixel.split(embed.dim, dim=1) for pixel in trunk.pixels]
        self.dtype = trunk.pixels[0].dtype
        self.head = HeadScan(head, h, len(trunk.pixels[0]), len(trunk.pixels))
        self.features: Tensor | None = None

    def begin_row(self, row: int) -> None:
        self.trunk.begin_row(row)
        self.head.begin_row(row)

    def params(self, row: int, col: int, channel: int) -> Tensor:
        if channel < self.trunk.groups:
            self.features = self.trunk.features(row, col, channel)
        if channel >= self.head.groups:
            return self.head.outputs[col]
        assert self.features is not None
        return self.head.step(self.features, self.pixels[col], col, channel)

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        self.inputs[col][channel].copy_(self.embed.channel(values, channel, self.dtype))

    def row(self, row: int) -> Tensor:
        return self.head.row
