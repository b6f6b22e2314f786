"""Order of the channels within one pixel, by masked groups of feature channels.

The feature channels are split into contiguous groups, and group g may see group g' of the same
pixel where g' < g (mask type A, for the image itself) or g' <= g (mask type B, for features). One
group is the case without any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

MaskType = Literal["A", "B"]


def group_bounds(channels: int, groups: int) -> list[int]:
    """Return the start of each of `groups` contiguous channel groups, and the end of the last.

    >>> group_bounds(64, 3)
    [0, 21, 43, 64]
    """
    if channels < groups:
        raise ValueError(
            f"expected at least {groups} channels, one for each of {groups} channel groups, "
            f"got {channels}: widen the layer"
        )
    return [round(channels * g / groups) for g in range(groups + 1)]


def group_ids(channels: int, groups: int, repeats: int = 1) -> list[int]:
    """Return the group of each of repeats * channels channels, for `repeats` stacked copies.

    A gated layer has two copies: its tanh half and its sigmoid half.

    >>> group_ids(5, 2, repeats=2)
    [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    """
    bounds = pairwise(group_bounds(channels, groups))
    return [group for group, (a, b) in enumerate(bounds) for _ in range(a, b)] * repeats


class GroupMask:
    """A mask of the input channels of its own pixel that each output channel may see.

    Made of integers, where and when a weight is multiplied by it, and kept for the next time. It
    is not a buffer: nothing that builds a module without numbers (the meta device, `to_empty`),
    loads it or copies it can lose or change it.

    Args:
        out_ids: the group of each output channel.
        in_ids: the group of each input channel.
        mask_type: "A" shows earlier groups, "B" also a channel's own.
        left: columns of the kernel, before that of the pixel itself, that are seen by all.

    Attributes:
        hides_all: whether nothing of the pixel itself is seen.
        shows_all: whether all of it is.

    >>> mask = GroupMask([0, 1], [0, 1], "B")
    >>> mask.apply(torch.ones(2, 2, 1, 1))[:, :, 0, 0]
    tensor([[1., 0.],
            [1., 1.]])
    """

    def __init__(
        self, out_ids: Sequence[int], in_ids: Sequence[int], mask_type: MaskType, left: int = 0
    ):
        self.out_ids, self.in_ids = tuple(out_ids), tuple(in_ids)
        self.offset, self.left = int(mask_type == "A"), left
        self.hides_all = min(self.in_ids) + self.offset > max(self.out_ids)
        self.shows_all = max(self.in_ids) + self.offset <= min(self.out_ids)
        self._made: dict[torch.device, Tensor] = {}

    def apply(self, weight: Tensor) -> Tensor:
        """Return a kernel (out, in, 1, left + 1), zero where nothing may be seen."""
        return weight * self.seen(weight)

    def seen(self, weight: Tensor) -> Tensor:
        """Return the mask (out, in, 1, left + 1) of bool, on the weight's device."""
        device = weight.device
        # Compiled, it is a few comparisons, fused into the product. Tensors that stand for others
        # (fake, distributed) want one of their own kind.
        if torch.compiler.is_compiling() or type(weight) not in (Tensor, nn.Parameter):
            return self._make(device)
        made = self._made.get(device)
        if made is None:
            with torch.inference_mode(False):
                made = self._make(device)
            # A CUDA graph that is being recorded has not computed it yet.
            if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
                self._made[device] = made
        return made

    def _make(self, device: torch.device) -> Tensor:
        out_ids, in_ids = _on(self.out_ids, device), _on(self.in_ids, device)
        seen = (in_ids + self.offset <= out_ids[:, None])[:, :, None, None]
        return seen | (torch.arange(self.left + 1, device=device) < self.left)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": {}}


def _on(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Return integers as a tensor made on the device, so that there is no copy to wait for."""
    position = torch.arange(len(ids), device=device)
    out = torch.full_like(position, ids[0])
    for start, (a, b) in enumerate(pairwise(ids), start=1):
        if a != b:
            out = out + (b - a) * (position >= start)
    return out
