"""Integer levels and the floats in [0, 1] that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from decoders.arguments import check_count, check_tensor


def to_levels(x: Tensor, num_levels: int = 256) -> Tensor:
    """Quantise floats in [0, 1] to integer levels 0..num_levels-1.

    Args:
        x: floats in [0, 1], any shape. Values k / (num_levels - 1) give exactly k.
        num_levels: L.

    Raises:
        TypeError: x isn't a tensor.
        ValueError: x isn't floating-point, or lies outside [0, 1]; fewer than 2 levels.

    >>> to_levels(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    check_tensor(x, "floats in [0, 1]", "convert them by torch.as_tensor")
    check_count(num_levels, "num_levels", 2)
    if not x.is_floating_point():
        raise ValueError(f"expected floats in [0, 1], got {x.dtype}")
    if x.numel() and (float(x.min()) < 0 or float(x.max()) > 1 or bool(x.isnan().any())):
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"expected floats in [0, 1], got {low:.4g}..{high:.4g}: rescale them")
    levels = (x.float() * (num_levels - 1)).round()
    return levels.to(torch.uint8 if num_levels <= 256 else torch.int64)
