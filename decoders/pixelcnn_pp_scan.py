"""The cached scan of a `PixelCNNPlusPlus`: each activation is computed once.

A stream at scale k has a cell for each k×k pixels, which is computed with the first of them. So the
rows of u at scale k are computed when a row divisible by k begins, and the cells of ul with the
pixels whose row and column are divisible by k. What a coarser scale gives the rows and pixels in
between is kept for them.

Of what a cell of ul sees, the row above is known when its own row begins, and is computed for the
whole row at once, together with what u and h give; what lies to the left is one matrix product for
each cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.caches import ShiftedCells, ShiftedRows, kernel_matrix, window, windows
from decoders.conditioning import fit_map
from decoders.heads import HeadScan
from decoders.layers import ShiftedConv2d
from decoders.sampling import Scan

if TYPE_CHECKING:
    from decoders.pixelcnn_pp import (
        Block,
        BlockPair,
        PixelCNNPlusPlus,
        Resample,
        ShiftedUpsample,
    )


class ScaledScan(Scan):
    """One pass in raster order."""

    def __init__(self, decoder: PixelCNNPlusPlus, h: Tensor | None, num: int):
        codes, width = decoder.codes(h), decoder.image_shape[2]
        self.scales = len(codes)
        self.row_period = 2 ** (self.scales - 1)
        self.embed = decoder.embed
        wide = width + -width % self.row_period
        self.first = _FirstScan(decoder, num, width, wide)
        widths = [wide >> scale for scale in range(self.scales)]

        def pairs(blocks: object, scale: int) -> list[_PairScan]:
            return [
                _PairScan(pair, codes[scale], num, widths[scale])
                for pair in cast("list[BlockPair]", blocks)
            ]

        self.down = [pairs(blocks, scale) for scale, blocks in enumerate(decoder.down)]
        self.up = [pairs(blocks, scale) for scale, blocks in enumerate(decoder.up)]
        self.shrink = [
            _HalveScan(cast("Resample", part), num, widths[scale])
            for scale, part in enumerate(decoder.shrink)
        ]
        self.enlarge = [
            _DoubleScan(cast("Resample", part), num, widths[scale])
            for scale, part in enumerate(decoder.enlarge)
        ]
        h = fit_map(h, decoder.image_shape[1:], decoder.resize)
        self.head = HeadScan(decoder.head, h, num, width)
        self.features = self.first.pre.new_zeros(num, decoder.first.u.out_channels)

    def begin_row(self, row: int) -> None:
        """Compute u in this row, and what it, h and the rows above give to ul."""
        self._through(self.first.begin_row(row), _RowStep(row))
        self.head.begin_row(row)

    def params(self, row: int, col: int, channel: int) -> Tensor:
        if channel == 0:
            ul = self._through(self.first.cell(col), _CellStep(row, col))
            self.features.copy_(ul).relu_()  # copied: it is of another type under autocast
        if channel >= self.head.groups:
            return self.head.outputs[col]
        return self.head.step(self.features, self.first.pixel(col), col, channel)

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        size, pixel = self.embed.dim, self.first.pixel(col)
        vector = self.embed.channel(values, channel, pixel.dtype)
        pixel[:, channel * size : (channel + 1) * size] = vector

    def row(self, row: int) -> Tensor:
        return self.head.row

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
    """The parts of the scan for a row of u."""

    row: int

    def pair(self, part: _PairScan, u: Tensor, scale: int, kept: Tensor | None = None) -> Tensor:
        return part.begin_row(u, self.row >> scale, kept)

    def shrink(self, part: _HalveScan, u: Tensor, scale: int) -> Tensor | None:
        return part.begin_row(u, self.row >> scale)

    def found(self, part: _DoubleScan, scale: int) -> Tensor:
        return part.second_row

    def enlarge(self, part: _DoubleScan, u: Tensor, scale: int) -> Tensor:
        return part.begin_row(u)


class _CellStep(NamedTuple):
    """The parts of the scan for a pixel of ul, and for the coarser cells that begin with it."""

    row: int
    col: int

    def pair(self, part: _PairScan, ul: Tensor, scale: int, kept: Tensor | None = None) -> Tensor:
        return part.ul.cell(ul, self.col >> scale, kept)

    def shrink(self, part: _HalveScan, ul: Tensor, scale: int) -> Tensor | None:
        return part.cell(ul, self.row >> scale, self.col >> scale)

    def found(self, part: _DoubleScan, scale: int) -> Tensor:
        return part.found(self.row >> scale, self.col >> scale)

    def enlarge(self, part: _DoubleScan, ul: Tensor, scale: int) -> Tensor:
        part.cell(ul, self.col >> (scale + 1))
        return self.found(part, scale)


class _FirstScan:
    """A `FirstLayer`: its shifts let a row begin with the image's row above, complete by then."""

    def __init__(self, decoder: PixelCNNPlusPlus, num: int, width: int, wide: int):
        first = decoder.first
        weight = first.left.weight.detach()
        self.reach, self.wide = first.reach, wide
        # The row of the image, with what lies left of it; the last feature tells it from padding.
        self.buffer = weight.new_zeros(num, self.reach + wide, weight.shape[1])
        self.buffer[:, self.reach : self.reach + width, -1] = 1
        self.u, self.above = ShiftedRows(first.u, num, wide), ShiftedRows(first.above, num, wide)
        self.row_above = kernel_matrix(weight[:, :, 0])
        self.row_own = kernel_matrix(weight[:, :, 1])
        assert first.left.bias is not None
        self.bias = first.left.bias.detach()
        self.pre = weight.new_zeros(num, wide, weight.shape[0])

    def pixel(self, col: int) -> Tensor:
        """The embedded pixel (B, C · D), right once its channels were pushed."""
        return self.buffer[:, self.reach + col, :-1]

    def begin_row(self, row: int) -> Tensor:
        """Return the row of u, (B, F, 1, W)."""
        self.pre.zero_()
        left = self.pre[:, 1:]
        if row == 0:
            left.add_(self.bias)
            return _as_row(torch.zeros_like(self.pre))
        image = _as_row(self.buffer[:, self.reach :])
        self.u.push(image)
        self.above.push(image)
        self.pre.copy_(_as_cells(self.above.output()))
        left.add_(windows(self.buffer, self.reach)[:, 1 : self.wide] @ self.row_above)
        left.add_(self.bias)
        return self.u.output()

    def cell(self, col: int) -> Tensor:
        """Return ul at a pixel, (B, F)."""
        pre = self.pre[:, col]
        if col:
            pre.addmm_(window(self.buffer, col, self.reach), self.row_own)
        return pre


class _PairScan:
    """A `BlockPair`: a row of u, a cell of ul."""

    def __init__(self, pair: BlockPair, h: Tensor | None, num: int, width: int):
        self.u = _RowBlock(pair.u, h, num, width)
        self.ul = _CellBlock(pair.ul, h, num, width)

    def begin_row(self, u: Tensor, row: int, kept: Tensor | None = None) -> Tensor:
        u = self.u.row(u, row, kept)
        self.ul.begin_row(u, row)
        return u


class _RowBlock:
    """A `Block` of u, a row at a time."""

    def __init__(self, block: Block, h: Tensor | None, num: int, width: int):
        self.extra = block.extra
        self.enter, self.leave = (
            ShiftedRows(block.enter, num, width),
            ShiftedRows(block.leave, num, width),
        )
        self.cond = block.cond.bias(h)

    def row(self, x: Tensor, row: int, a: Tensor | None) -> Tensor:
        """(B, F, 1, W) to the same."""
        self.enter.push(_act(x))
        z = self.enter.output()
        if self.extra is not None and a is not None:
            z = z + self.extra(_act(a))
        self.leave.push(_act(z))
        z = self.leave.output()
        if self.cond is not None:
            z = z + _row_of(self.cond, row)
        return x + F.glu(z, dim=1)


class _CellBlock:
    """A `Block` of ul, a cell at a time; what is known when a row begins for the whole row."""

    def __init__(self, block: Block, h: Tensor | None, num: int, width: int):
        self.enter, self.leave = (
            ShiftedCells(block.enter, num, width),
            ShiftedCells(block.leave, num, width),
        )
        self.cond = block.cond.bias(h)
        assert block.extra is not None
        weight = block.extra.weight.detach()[:, :, 0, 0]
        size = block.enter.out_channels
        parts = weight.split(size, dim=1)  # of a and -a; on the way up a is u and a shortcut
        half = len(parts) // 2
        self.from_u = torch.cat([parts[0], parts[half]], dim=1)
        self.from_kept = torch.cat([parts[1], parts[half + 1]], dim=1).t() if half == 2 else None
        self.kept = self.enter.pre.new_zeros(num, 2 * size)

    def begin_row(self, u: Tensor, row: int) -> None:
        self.enter.begin_row()
        self.enter.pre.add_(_as_cells(F.conv2d(_act(u), self.from_u[:, :, None, None])))
        self.leave.begin_row()
        if self.cond is not None:
            self.leave.pre.add_(_as_cells(_row_of(self.cond, row)))

    def cell(self, x: Tensor, col: int, kept: Tensor | None) -> Tensor:
        """(B, F) to the same."""
        _act_into(x, self.enter.slot(col))
        z = self.enter.output(col)
        if kept is not None and self.from_kept is not None:
            _act_into(kept, self.kept)
            z.addmm_(self.kept, self.from_kept)
        _act_into(z, self.leave.slot(col))
        return x + F.glu(self.leave.output(col), dim=1)


class _HalveScan:
    """A `Resample` to half the size."""

    def __init__(self, part: Resample, num: int, width: int):
        self.u = ShiftedRows(cast("ShiftedConv2d", part.u), num, width)
        self.ul = ShiftedCells(cast("ShiftedConv2d", part.ul), num, width)

    def begin_row(self, u: Tensor, row: int) -> Tensor | None:
        """Take a row of u; return the coarse row that begins with it, if one does."""
        self.u.push(u)
        if row % 2:
            return None
        self.ul.begin_row()
        return self.u.output()

    def cell(self, ul: Tensor, row: int, col: int) -> Tensor | None:
        """Take a cell of ul; return the coarse cell that begins with it, if one does."""
        self.ul.slot(col).copy_(ul)
        return None if row % 2 or col % 2 else self.ul.output(col // 2)


class _DoubleScan:
    """A `Resample` to twice the size: what a coarse cell gives is kept for its four fine cells."""

    def __init__(self, part: Resample, num: int, width: int):
        self.u = cast("ShiftedUpsample", part.u)
        ul = cast("ShiftedUpsample", part.ul)
        size = ul.out_channels
        assert ul.bias is not None
        # One row of two cells after the other, each cell's features together.
        self.weight = ul.weight.detach().permute(0, 2, 3, 1).flatten(1).contiguous()
        self.bias = ul.bias.detach().repeat(4)
        self.cells = self.weight.new_zeros(2, num, width, size)
        self.second_row = _as_row(self.weight.new_zeros(num, width, size))

    def begin_row(self, u: Tensor) -> Tensor:
        """Take a coarse row of u; return the first of its two fine rows."""
        rows = self.u(u)
        self.second_row.copy_(rows[:, :, 1:])
        return rows[:, :, :1]

    def cell(self, ul: Tensor, col: int) -> None:
        """Take a coarse cell of ul."""
        block = torch.addmm(self.bias, ul, self.weight).view(len(ul), 2, 2, -1)
        self.cells[:, :, 2 * col : 2 * col + 2] = block.transpose(0, 1)

    def found(self, row: int, col: int) -> Tensor:
        """The features that a fine cell was given, (B, F)."""
        return self.cells[row % 2, :, col]


def _act(x: Tensor) -> Tensor:
    return F.elu(torch.cat([x, -x], dim=1))


def _act_into(x: Tensor, out: Tensor) -> None:
    """ELU of features (B, F) and of their negatives, into (B, 2F)."""
    size = x.shape[1]
    out[:, :size].copy_(x)
    torch.neg(x, out=out[:, size:])
    F.elu_(out)


def _as_row(cells: Tensor) -> Tensor:
    """(B, W, F) as (B, F, 1, W)."""
    return cells.transpose(1, 2).unsqueeze(2)


def _as_cells(row: Tensor) -> Tensor:
    """(B, F, 1, W) as (B, W, F)."""
    return row.squeeze(2).transpose(1, 2)


def _row_of(bias: Tensor, row: int) -> Tensor:
    """The row of a bias (B, F, H, W), or one of (B, F, 1, 1) as it is."""
    return bias if bias.shape[2:] == (1, 1) else bias[:, :, row : row + 1]
