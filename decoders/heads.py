"""Embedding of pixels, and the head from features to the likelihood's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.channel_groups import group_bounds, group_ids
from decoders.conditioning import Conditioning
from decoders.layers import PixelLinear
from decoders.likelihoods import Likelihood

ColorOrder = Literal["auto", "groups", "head", "independent"]


def resolve_color_order(
    order: ColorOrder,
    likelihood: Likelihood,
    channels: int,
    offered: Sequence[ColorOrder] = ("groups", "head", "independent"),
) -> ColorOrder:
    """Return the color order asked for, checked; for "auto" the first that fits the likelihood.

    Args:
        order: the one asked for.
        likelihood: may order the channels itself.
        channels: of a pixel.
        offered: those that the network can be built for.

    Raises:
        ValueError: an unknown order, one that is not offered, or one that the likelihood would
            count twice.
    """
    if order == "auto":
        return "independent" if likelihood.orders_channels else offered[0]
    if order not in offered:
        *names, last = map(repr, ("auto", *offered))
        cure = ": 'head' orders the channels as well" if order == "groups" else ""
        raise ValueError(f"expected color_order {', '.join(names)} or {last}, got {order!r}{cure}")
    if likelihood.orders_channels and order != "independent" and channels > 1:
        raise ValueError(
            f"expected color_order 'independent' or 'auto' with {likelihood}, which orders the "
            f"channels itself, got {order!r}"
        )
    return order


def level_waves(num_levels: int, count: int) -> Tensor:
    """Return cosines over the levels, from half a wave up: (levels, at most `count`), orthogonal.

    Each has mean 0 and mean square 1; there are no more than `num_levels` - 1 of them.

    >>> [round(value, 2) for value in level_waves(4, 1).flatten().tolist()]
    [1.31, 0.54, -0.54, -1.31]
    """
    levels = torch.arange(num_levels)[:, None] + 0.5
    frequencies = torch.arange(1, min(count, num_levels - 1) + 1)
    return 2**0.5 * torch.cos(torch.pi / num_levels * frequencies * levels)


class PixelEmbedding(nn.Module):
    """Images as network input: levels scaled to [-1, 1], or a learned vector for each level.

    (B, C, H, W) levels -> (B, C * D, H, W), D = `dim` or 1, channel by channel. Continuous x
    passes unchanged.

    Source of the learned one: Gulrajani et al.: PixelVAE (2016), https://arxiv.org/abs/1611.05013,
    whose authors' code finds better likelihoods with it.

    >>> PixelEmbedding(3, 256, dim=4)(torch.zeros(2, 3, 5, 5, dtype=torch.uint8)).shape
    torch.Size([2, 12, 5, 5])
    """

    def __init__(self, channels: int, num_levels: int | None, dim: int = 0):
        super().__init__()
        dim = check_count(dim, "embedding_dim", 0)
        if dim and num_levels is None:
            raise ValueError("expected embedding_dim=0 for continuous x, which has no levels")
        self.channels, self.num_levels, self.dim = channels, num_levels, max(dim, 1)
        self.table = nn.Embedding(channels * (num_levels or 0), dim) if dim else None
        if self.table is not None and num_levels is not None:
            # Smooth in the level, or the images would be noise until the table is learned.
            waves = level_waves(num_levels, dim)
            with torch.no_grad():
                self.table.weight[:, : waves.shape[1]] = waves.repeat(channels, 1)

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        if self.table is not None:
            assert self.num_levels is not None
            offsets = torch.arange(self.channels, device=x.device) * self.num_levels
            offsets = offsets.view(-1, *[1] * (x.dim() - 2))
            vectors = self.table(x.long() + offsets)  # (B, C, H, W, D)
            return vectors.movedim(-1, 2).flatten(1, 2)
        if self.num_levels is None:
            return x.to(dtype)
        return x.to(dtype) * (2 / (self.num_levels - 1)) - 1

    def channel(self, values: Tensor, channel: int, dtype: torch.dtype) -> Tensor:
        """Return the embedding (B, D) of one channel's values (B,)."""
        if self.table is not None:
            assert self.num_levels is not None
            return self.table(values.long() + channel * self.num_levels)
        if self.num_levels is None:
            return values.to(dtype)[:, None]
        return values.to(dtype)[:, None] * (2 / (self.num_levels - 1)) - 1


class PixelHead(nn.Module):
    """ReLU, 1×1, ReLU, 1×1: a pixel's features to the likelihood's parameters.

    The order of the colors R→G→B comes in one of three ways:

    - "groups": the features are in channel groups already, and the head keeps their order;
    - "head": the features know earlier pixels only, and here, in a small network for each pixel,
      the parameters of each channel see the pixel's earlier channels;
    - "independent": not at all, or within the likelihood.

    Args:
        channels: C.
        features: channels of the incoming features.
        hidden: channels of the hidden layer.
        likelihood: gives the number of parameters.
        color_order: see above.
        embedding_dim: D, of the embedded image (looked at by "head" alone).
        cond_shape: of h, which biases both layers.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        hidden: int,
        likelihood: Likelihood,
        color_order: ColorOrder,
        embedding_dim: int = 1,
        cond_shape: tuple[int, ...] = (),
    ):
        super().__init__()
        hidden = check_count(hidden, "head_channels")
        params = likelihood.num_params(channels)
        self.groups = 1 if color_order == "independent" else channels
        hidden_ids = group_ids(hidden, self.groups)
        # In "head" the features know nothing of their own pixel: every group may see them all.
        feature_groups = self.groups if color_order == "groups" else 1
        feature_ids = group_ids(features, feature_groups)
        self.own = None
        if color_order == "head" and channels > 1:
            own_ids = group_ids(channels * embedding_dim, channels)
            self.own = PixelLinear(own_ids, hidden_ids, "A", bias=False)
        self.hidden = PixelLinear(feature_ids, hidden_ids)
        self.output = PixelLinear(hidden_ids, group_ids(params, self.groups))
        self.hidden_cond = Conditioning(cond_shape, hidden)
        self.output_cond = Conditioning(cond_shape, params)
        self.hidden_bounds = group_bounds(hidden, self.groups)
        self.output_bounds = group_bounds(params, self.groups)
        self.feature_bounds = group_bounds(features, feature_groups)
        self.embedding_dim = embedding_dim

    def forward(self, features: Tensor, embedded: Tensor, h: Tensor | None) -> Tensor:
        z = self.hidden_cond(self.hidden(torch.relu(features)), h)
        if self.own is not None:
            z = z + self.own(embedded)
        return self.output_cond(self.output(torch.relu(z)), h)


ALIGNMENT = 16  # numbers, at least 64 bytes: where PyTorch's own tensors begin


class HeadScan:
    """A `PixelHead` computed one channel group at a time, for one pixel of each image."""

    def __init__(self, head: PixelHead, h: Tensor | None, batch: int, width: int):
        hidden_weight = head.hidden.causal_weight().detach()[:, :, 0, 0]
        output_weight = head.output.causal_weight().detach()[:, :, 0, 0]
        self.groups = head.groups
        self.hidden = hidden_weight.new_zeros(batch, head.hidden.out_channels)
        # A row of parameters, looked at when it is complete rather than at each step. Each pixel's
        # begin at a multiple of 64 bytes, on which the last digits of a product may depend.
        params = head.output.out_channels
        row = hidden_weight.new_zeros(width, -(-batch * params // ALIGNMENT) * ALIGNMENT)
        self.outputs = row[:, : batch * params].unflatten(1, (batch, params)).unbind()
        self.row = torch.as_strided(row, (batch, params, width), (params, 1, row.shape[1]))
        self.hidden_bias = _RowBias(head.hidden.bias, head.hidden_cond.bias(h))
        self.output_bias = _RowBias(head.output.bias, head.output_cond.bias(h))
        a, b, c = head.hidden_bounds, head.output_bounds, head.feature_bounds
        self.hidden_bounds, self.output_bounds = list(pairwise(a)), list(pairwise(b))
        self.features_seen = [c[-1] if len(c) == 2 else c[g + 1] for g in range(self.groups)]
        self.own_seen = [g * head.embedding_dim if head.own else 0 for g in range(self.groups)]
        self.hidden_parts = [self.hidden[:, start:end] for start, end in self.hidden_bounds]
        self.hidden_seen = [self.hidden[:, :end] for end in a[1:]]
        self.output_parts = [
            [output[:, start:end] for start, end in self.output_bounds] for output in self.outputs
        ]
        self.hidden_weights = [
            hidden_weight[start:end, :seen].t().contiguous()
            for (start, end), seen in zip(self.hidden_bounds, self.features_seen, strict=True)
        ]
        self.output_weights = [
            output_weight[start:end, :seen].t().contiguous()
            for (start, end), seen in zip(self.output_bounds, a[1:], strict=True)
        ]
        self.own_weights: list[Tensor] = []
        if head.own is not None:
            own = head.own.causal_weight().detach()[:, :, 0, 0]
            self.own_weights = [
                own[start:end, :seen].t().contiguous()
                for (start, end), seen in zip(self.hidden_bounds, self.own_seen, strict=True)
            ]

    def begin_row(self, row: int) -> None:
        """Fetch what a map h adds in this row."""
        self.hidden_bias.begin_row(row)
        self.output_bias.begin_row(row)

    def step(self, features: Tensor, embedded: Tensor, col: int, group: int) -> Tensor:
        """Return the parameters (B, P), right for `group` and those before.

        Args:
            features: (B, F) after the ReLU, right up to `group` where they are in groups.
            embedded: (B, C * D), the pixel's embedded channels, right before `group`.
            col: the pixel's column.
            group: the channel group.
        """
        z = self.hidden_parts[group]
        bias = self.hidden_bias.at(col, self.hidden_bounds[group])
        seen = features[:, : self.features_seen[group]]
        torch.addmm(bias, seen, self.hidden_weights[group], out=z)
        if self.own_seen[group]:
            z.addmm_(embedded[:, : self.own_seen[group]], self.own_weights[group])
        z.relu_()
        bias = self.output_bias.at(col, self.output_bounds[group])
        out = self.output_parts[col][group]
        torch.addmm(bias, self.hidden_seen[group], self.output_weights[group], out=out)
        return self.outputs[col]


class _RowBias:
    """A layer's bias with that of h: the same everywhere, or one for each pixel of a row."""

    def __init__(self, bias: Tensor | None, cond: Tensor | None):
        assert bias is not None
        self.rows: Tensor | None = None  # (H, W, B, F)
        if cond is None:
            self.row = bias.detach()  # (F,)
        elif cond.shape[2:] == (1, 1):
            self.row = bias.detach() + cond.detach()[:, :, 0, 0]  # (B, F)
        else:
            self.rows = bias.detach() + cond.detach().permute(2, 3, 0, 1)
            self.row = torch.empty_like(self.rows[0])  # (W, B, F), always in the same place

    def begin_row(self, row: int) -> None:
        if self.rows is not None:
            self.row.copy_(self.rows[row])

    def at(self, col: int, span: tuple[int, int]) -> Tensor:
        """Return the part for some of the features of one pixel, (f,) or (B, f)."""
        row = self.row if self.rows is None else self.row[col]
        return row[..., span[0] : span[1]]
