"""Cached scan of a `PixelCNNPlusPlus`: each activation is computed once.

A stream at scale k has a cell for each k×k pixels, which is computed with the first of them. So the
rows of u at scale k are computed when a row divisible by k begins, and the cells of ul with the
pixels whose row and column are divisible by k. What a coarser scale gives the rows and pixels in
between is kept for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import Tensor, nn

from decoders.network_scan import TrunkScan
from decoders.pixelcnn_pp_cells import DoubleScan, FirstScan, HalveScan, PairScan
from decoders.pixelcnn_pp_layers import BlockPair, FirstLayer, Resample


class ScaledTrunkScan(TrunkScan):
    """Both streams in raster order.

    Args:
        first: the first layer.
        down: blocks of each scale, on the way down.
        up: blocks of each scale, on the way up.
        shrink: from each scale but the last to the next.
        enlarge: from each scale but the first to the one before.
        codes: h for each scale.
        num: images.
        width: of an image.
    """

    groups = 1

    def __init__(
        self,
        first: FirstLayer,
        down: nn.ModuleList,
        up: nn.ModuleList,
        shrink: nn.ModuleList,
        enlarge: nn.ModuleList,
        codes: list[Tensor | None],
        num: int,
        width: int,
    ):
        self.scales = len(codes)
        self.row_period = 2 ** (self.scales - 1)
        wide = width + -width % self.row_period
        self.first = FirstScan(first, num, width, wide)
        self.pixels = [self.first.pixel(col) for col in range(width)]
        widths = [wide >> scale for scale in range(self.scales)]

        def pairs(blocks: Iterable[nn.Module], scale: int) -> list[PairScan]:
            return [
                PairScan(cast(BlockPair, pair), codes[scale], num, widths[scale]) for pair in blocks
            ]

        self.down = [pairs(cast(nn.ModuleList, blocks), scale) for scale, blocks in enumerate(down)]
        self.up = [pairs(cast(nn.ModuleList, blocks), scale) for scale, blocks in enumerate(up)]
        self.shrink = [
            HalveScan(cast(Resample, part), num, size)
            for part, size in zip(shrink, widths, strict=False)
        ]
        self.enlarge = [
            DoubleScan(cast(Resample, part), num, size)
            for part, size in zip(enlarge, widths, strict=False)
        ]
        self.last = self.first.pre.new_zeros(num, first.u.out_channels)

    def begin_row(self, row: int) -> None:
        """Compute u in this row, and what it, h and the rows above give to ul."""
        self._through(self.first.begin_row(row), _RowStep(row))

    def features(self, row: int, col: int, group: int) -> Tensor:
        ul = self._through(self.first.cell(col), _CellStep(row, col))
        return self.last.copy_(ul).relu_()  # copied: it is of another type under autocast

    def _through(self, x: Tensor, step: _RowStep | _CellStep) -> Tensor:
        """Take one stream down to the scales that begin here, and up again with the shortcuts."""
        kept, coarsest, last = [x], 0, self.scales - 1
        for scale in range(self.scales):
            coarsest = scale
            for pair in self.down[scale]:
                x = step.pair(pair, x, scale)
                kept.append(x)
            if scale == last or (coarse := step.shrink(self.shrink[scale], x, scale)) is None:
                break
            x = coarse
            kept.append(x)
        x = kept.pop() if coarsest == last else step.found(self.enlarge[coarsest], coarsest)
        for scale in reversed(range(coarsest + 1)):
            for pair in self.up[scale]:
                x = step.pair(pair, x, scale, kept.pop())
            if scale:
                x = step.enlarge(self.enlarge[scale - 1], x, scale - 1)
        return x


class _RowStep(NamedTuple):
    """Parts of the scan for a row of u."""

    row: int

    def pair(self, part: PairScan, u: Tensor, scale: int, kept: Tensor | None = None) -> Tensor:
        return part.begin_row(u, self.row >> scale, kept)

    def shrink(self, part: HalveScan, u: Tensor, scale: int) -> Tensor | None:
        return part.begin_row(u, self.row >> scale)

    def found(self, part: DoubleScan, scale: int) -> Tensor:
        return part.second_row

    def enlarge(self, part: DoubleScan, u: Tensor, scale: int) -> Tensor:
        return part.begin_row(u)


class _CellStep(NamedTuple):
    """Parts of the scan for a pixel of ul, and for the coarser cells that begin with it."""

    row: int
    col: int

    def pair(self, part: PairScan, ul: Tensor, scale: int, kept: Tensor | None = None) -> Tensor:
        return part.ul.cell(ul, self.col >> scale, kept)

    def shrink(self, part: HalveScan, ul: Tensor, scale: int) -> Tensor | None:
        return part.cell(ul, self.row >> scale, self.col >> scale)

    def found(self, part: DoubleScan, scale: int) -> Tensor:
        return part.found(self.row >> scale, self.col >> scale)

    def enlarge(self, part: DoubleScan, ul: Tensor, scale: int) -> Tensor:
        part.cell(ul, self.col >> (scale + 1))
        return self.found(part, scale)
