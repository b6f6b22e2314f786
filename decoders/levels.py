"""Integer levels and the floats in [0, 1] that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from decoders.arguments import check_count, check_tensor


def to_levels(x: Tensor, num_levels: int = 256) -> Tensor:
    """Quantize floats in [0, 1] to integer levels 0..num_levels-1.

    Args:
        x: floats in [0, 1], any shape. Values k / (num_levels - 1) give exactly k.
        num_levels: L.

    Raises:
        TypeError: x is not a tensor.
        ValueError: x is not floating-point, or outside [0, 1]; fewer than 2 levels.

    >>> to_levels(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    check_tensor(x, "floats in [0, 1]", "convert them with torch.as_tensor")
    check_count(num_levels, "num_levels", 2)
    if not x.is_floating_point():
        raise ValueError(f"expected floats in [0, 1], got {x.dtype}")
    if x.numel() and (float(x.min()) < 0 or float(x.max()) > 1 or bool(x.isnan().any())):
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"expected floats in [0, 1], got {low:.4g}..{high:.4g}: rescale them")
    levels = (x.float() * (num_levels - 1)).round()
    return levels.to(level_dtype(num_levels))


def from_levels(x: Tensor, num_levels: int = 256) -> Tensor:
    """Scale integer levels 0..num_levels-1 to float32 in [0, 1]; `to_levels` gives them back.

    Args:
        x: integer levels, any shape.
        num_levels: L.

    Raises:
        TypeError: x is not a tensor.
        ValueError: x is not integer, or outside 0..num_levels-1; fewer than 2 levels.

    >>> from_levels(torch.tensor([0, 1, 3], dtype=torch.uint8), num_levels=4)
    tensor([0.0000, 0.3333, 1.0000])
    """
    _check_levels(x, check_count(num_levels, "num_levels", 2))
    return x.float() / (num_levels - 1)


def requantize(x: Tensor, from_levels: int, to_levels: int) -> Tensor:
    """Convert integer levels to fewer or more of them, in integer arithmetic.

    Fewer levels are bins of equal width, as with `--levels`. More levels are spread evenly, so that
    the lowest and the highest level stay what they are.

    Args:
        x: levels 0..from_levels-1, any shape.
        from_levels: the number of levels of x.
        to_levels: the number of levels of the result.

    Returns:
        Levels 0..to_levels-1, uint8 for up to 256 levels, else int64.

    Raises:
        TypeError: x is not a tensor.
        ValueError: x is not integer, or outside 0..from_levels-1; fewer than 2 levels.

    >>> requantize(torch.tensor([0, 63, 64, 255], dtype=torch.uint8), 256, 4)
    tensor([0, 0, 1, 3], dtype=torch.uint8)
    >>> requantize(torch.tensor([0, 1, 2, 3], dtype=torch.uint8), 4, 256)
    tensor([  0,  85, 170, 255], dtype=torch.uint8)
    """
    check_count(to_levels, "to_levels", 2)
    _check_levels(x, check_count(from_levels, "from_levels", 2))
    if to_levels <= from_levels:
        levels = x.long() * to_levels // from_levels
    else:
        top = from_levels - 1
        levels = (x.long() * (to_levels - 1) + top // 2) // top
    return levels.to(level_dtype(to_levels))


def level_dtype(num_levels: int) -> torch.dtype:
    """Return the type of images of that many levels: uint8 up to 256, int64 above."""
    return torch.uint8 if num_levels <= 256 else torch.int64


def _check_levels(x: Tensor, num_levels: int) -> None:
    check_tensor(x, f"levels 0..{num_levels - 1}", "convert them with torch.as_tensor")
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"expected integer levels 0..{num_levels - 1}, got {x.dtype}")
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= num_levels):
        raise ValueError(f"expected levels 0..{num_levels - 1}, got {int(x.min())}..{int(x.max())}")
