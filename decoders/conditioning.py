"""Conditioning: the tensor h as a bias of each layer of a decoder."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resize = Literal["nearest", "bilinear"]


class Conditioning(nn.Module):
    """A learned linear map of h, added to the features of one layer.

    A vector h (B, K) adds the same bias everywhere; a map h (B, K, H, W) adds one for each place,
    through an unmasked 1×1 convolution. Without conditioning nothing is built and nothing is added.

    Source: van den Oord et al.: Conditional Image Generation with PixelCNN Decoders (2016),
    sections 2.3 and 2.4, https://arxiv.org/abs/1606.05328.

    >>> Conditioning((10,), 32)(torch.zeros(4, 32, 8, 8), torch.randn(4, 10)).shape
    torch.Size([4, 32, 8, 8])
    """

    def __init__(self, cond_shape: tuple[int, ...], channels: int):
        super().__init__()
        self.project = nn.Conv2d(cond_shape[0], channels, 1, bias=False) if cond_shape else None

    def bias(self, h: Tensor | None) -> Tensor | None:
        """Return the bias (B, channels, 1, 1) or (B, channels, H, W), or None."""
        if self.project is None or h is None:
            return None
        return self.project(h[:, :, None, None] if h.dim() == 2 else h)

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        bias = self.bias(h)
        return x if bias is None else x + bias


def check_resize(resize: str) -> None:
    """Raise a ValueError for an unknown way to resize a map."""
    if resize not in get_args(Resize):
        raise ValueError(f"expected resize 'nearest' or 'bilinear', got {resize!r}")


def fit_map(h: Tensor | None, size: tuple[int, int], resize: Resize) -> Tensor | None:
    """Resize a conditioning map to the image's (H, W). A vector, or None, passes unchanged.

    Class ids and keypoints must not be blended: "nearest" repeats, "bilinear" interpolates.
    """
    if h is None or h.dim() == 2:
        return h
    if tuple(h.shape[2:]) != tuple(size):
        if resize == "nearest":
            h = F.interpolate(h, size=size, mode="nearest-exact")
        else:
            h = F.interpolate(h, size=size, mode="bilinear", align_corners=False)
    # As the features it is added to; sums of two formats are copied at each layer.
    return channels_last(h)


def channels_last(x: Tensor) -> Tensor:
    """Return the same numbers in the layout in which convolutions are fastest.

    `torch.func.vmap` knows no such layout: there they stay as they are.
    """
    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x):  # pyright: ignore
        return x
    return x.contiguous(memory_format=torch.channels_last)
