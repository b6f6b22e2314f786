"""Layers of a `PixelCNNPlusPlus` in raster order: a row of u, a cell of ul.

Of what a cell of ul sees, the row above is known when its own row begins, and is computed for the
whole row at once, together with what u and h give; the cells to the left are one matrix product for
each cell.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.caches import ShiftedCells, ShiftedRows, kernel_matrix, window, windows
from decoders.layers import ShiftedConv2d
from decoders.pixelcnn_pp_layers import (
    Block,
    BlockPair,
    FirstLayer,
    Resample,
    ShiftedUpsample,
    act,
)


class FirstScan:
    """A `FirstLayer`: its shifts let a row begin with the image's row above, complete by then."""

    def __init__(self, first: FirstLayer, num: int, width: int, wide: int):
        weight = first.left.weight.detach()
        self.reach, self.wide = first.reach, wide
        # The row of the image, with the pixels left of it; the last feature tells it from padding.
        self.buffer = weight.new_zeros(num, self.reach + wide, weight.shape[1])
        self.buffer[:, self.reach : self.reach + width, -1] = 1
        self.u, self.above = ShiftedRows(first.u, num, wide), ShiftedRows(first.above, num, wide)
        self.row_above = kernel_matrix(weight[:, :, 0])
        self.row_own = kernel_matrix(weight[:, :, 1])
        assert first.left.bias is not None
        self.bias = first.left.bias.detach()
        self.pre = weight.new_zeros(num, wide, weight.shape[0])

    def pixel(self, col: int) -> Tensor:
        """Return the embedded pixel (B, C · D), right once its channels were pushed."""
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


class PairScan:
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
        """Compute one row, (B, F, 1, W) to the same."""
        self.enter.push(act(x))
        z = self.enter.output()
        if self.extra is not None and a is not None:
            z = z + self.extra(act(a))
        self.leave.push(act(z))
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
        self.enter.pre.add_(_as_cells(F.conv2d(act(u), self.from_u[:, :, None, None])))
        self.leave.begin_row()
        if self.cond is not None:
            self.leave.pre.add_(_as_cells(_row_of(self.cond, row)))

    def cell(self, x: Tensor, col: int, kept: Tensor | None) -> Tensor:
        """Compute one cell, (B, F) to the same."""
        _act_into(x, self.enter.slot(col))
        z = self.enter.output(col)
        if kept is not None and self.from_kept is not None:
            _act_into(kept, self.kept)
            z.addmm_(self.kept, self.from_kept)
        _act_into(z, self.leave.slot(col))
        return x + F.glu(self.leave.output(col), dim=1)


class HalveScan:
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


class DoubleScan:
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
        """Return the features that a fine cell was given, (B, F)."""
        return self.cells[row % 2, :, col]


def _act_into(x: Tensor, out: Tensor) -> None:
    """Write the ELU of features (B, F) and of their negatives to (B, 2F)."""
    size = x.shape[1]
    out[:, :size].copy_(x)
    torch.neg(x, out=out[:, size:])
    F.elu_(out)


def _as_row(cells: Tensor) -> Tensor:
    """Return (B, W, F) as (B, F, 1, W)."""
    return cells.transpose(1, 2).unsqueeze(2)


def _as_cells(row: Tensor) -> Tensor:
    """Return (B, F, 1, W) as (B, W, F)."""
    return row.squeeze(2).transpose(1, 2)


def _row_of(bias: Tensor, row: int) -> Tensor:
    """Return the row of a bias (B, F, H, W), or a bias (B, F, 1, 1) as it is."""
    return bias if bias.shape[2:] == (1, 1) else bias[:, :, row : row + 1]
