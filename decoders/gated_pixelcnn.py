"""GatedPixelCNN: two stacks of gated convolutions, without a blind spot."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from decoders.base import AutoregressiveDecoder, resolve_likelihood
from decoders.conditioning import Conditioning, Resize, fit_map
from decoders.heads import ColorOrder, HeadScan, PixelEmbedding, PixelHead, resolve_color_order
from decoders.layers import (
    AboveConv2d,
    LeftConv2d,
    MaskType,
    PixelLinear,
    gate,
    group_bounds,
    group_ids,
)
from decoders.likelihoods import Likelihood
from decoders.sampling import LeftWindow, RowCache, Scan


class GatedPixelCNN(AutoregressiveDecoder):
    """The Gated PixelCNN, a strong autoregressive decoder with an exact likelihood.

    ::

        x ─ embed ─┬─ vertical stack: rows above ──gate──gate── …
                   │        │ 1×1     │ 1×1
                   └─ horizontal stack: left, and earlier channels ──gate──gate── …
                                                        └──┬──┘ skips
        h ── a bias in every layer              ReLU 1×1 ReLU 1×1 ── parameters of each sub-pixel

    The vertical stack is shifted once, at its first layer, which sees strictly earlier rows; later
    layers include the row at hand, so that no pixel above is out of reach of the stack's cone.

    Args:
        image_shape: (C, H, W).
        num_levels: integer levels of x; 256 unless given, or those of `likelihood`.
        cond_shape: of one h: () none, (K,) a vector, (K, H', W') a map.
        hidden_channels: F, features of each stack.
        num_layers: gated layers after the first.
        kernel_size: k of those layers' k×k receptive field, odd.
        first_kernel_size: k of the first layer.
        likelihood: the head, a `Categorical` unless given.
        color_order: how a pixel's channels depend on each other: "groups", masked channel groups
            throughout the horizontal stack; "head", in a small network for each pixel, so that a
            pixel costs one step of the trunk in place of C; "independent", not at all (or within
            the likelihood). None takes the one that fits the likelihood.
        head_channels: hidden features of the head; F unless given.
        embedding_dim: learned vector for each level in place of the scaled level; 0 for none.
        dropout: on each layer's gated features, in training.
        residual: whether the horizontal stack has residual connections.
        skip: whether the head sees the sum of all layers, in place of the last one.
        gated: gates, or plain ReLUs (an ablation).
        weight_norm: whether the convolutions' weights are normalised.
        resize: how a map h is brought to the image's size: "nearest" or "bilinear".

    Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image
    Generation with PixelCNN Decoders (2016), https://arxiv.org/abs/1606.05328.

    >>> decoder = GatedPixelCNN((1, 8, 8), num_levels=2, cond_shape=(10,), num_layers=2)
    >>> x, h = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.randn(4, 10)
    >>> decoder.log_prob(x, h).shape, decoder.sample(h).shape
    (torch.Size([4]), torch.Size([4, 1, 8, 8]))
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int | None = None,
        cond_shape: tuple[int, ...] = (),
        hidden_channels: int = 64,
        num_layers: int = 12,
        kernel_size: int = 5,
        first_kernel_size: int = 7,
        likelihood: Likelihood | None = None,
        color_order: ColorOrder | None = None,
        head_channels: int | None = None,
        embedding_dim: int = 0,
        dropout: float = 0.0,
        residual: bool = True,
        skip: bool = True,
        gated: bool = True,
        weight_norm: bool = False,
        resize: Resize = "nearest",
    ):
        super().__init__(image_shape, resolve_likelihood(likelihood, num_levels), cond_shape)
        channels = self.image_shape[0]
        order = resolve_color_order(color_order, self.likelihood, channels)
        self.color_order: ColorOrder = order
        self.groups = channels if order == "groups" else 1
        self.resize: Resize = resize
        self.embed = PixelEmbedding(channels, self.num_levels, embedding_dim)
        self.layers = nn.ModuleList(
            GatedLayer(
                self.embed.dim * channels if index == 0 else hidden_channels,
                hidden_channels,
                first_kernel_size if index == 0 else kernel_size,
                mask_type="A" if index == 0 else "B",
                groups=self.groups,
                cond_shape=self.cond_shape,
                dropout=dropout,
                residual=residual,
                skip=skip or index == num_layers,
                gated=gated,
                last=index == num_layers,
            )
            for index in range(num_layers + 1)
        )
        self.head = PixelHead(
            channels,
            hidden_channels,
            head_channels or hidden_channels,
            self.likelihood,
            order,
            self.embed.dim,
            self.cond_shape,
        )
        if weight_norm:
            normalise_weights(self)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The likelihood's parameters (B, P, H, W); see `AutoregressiveDecoder.params`."""
        h = fit_map(h, (x.shape[2], x.shape[3]), self.resize)
        embedded = self.embed(x, next(self.parameters()).dtype)
        embedded = embedded.contiguous(memory_format=torch.channels_last)
        vertical = horizontal = embedded
        features = None
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, h)
            if skip is not None:
                features = skip if features is None else features + skip
        return self.head(features, embedded, h)

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """One pass in raster order that computes each activation once."""
        return GatedScan(self, h, num)


class GatedLayer(nn.Module):
    """One layer of both stacks.

    ::

        v ── above ──+cond──┬── gate ────────────────────────── v'
                            └ 1×1 ┐
        a ── left ──+cond ────────+── gate ──┬─ 1×1 ── (+ a) ── a'
                                             └─ 1×1 ─────────── skip

    The first layer ("A") sees the image itself: strictly earlier rows, columns and channels, and
    has no residual, since there is nothing yet to add to. The last one feeds the head alone.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        mask_type: MaskType,
        groups: int,
        cond_shape: tuple[int, ...],
        dropout: float,
        residual: bool,
        skip: bool,
        gated: bool,
        last: bool,
    ):
        super().__init__()
        first = mask_type == "A"
        halves = 2 if gated else 1
        ids, wide_ids = group_ids(channels, groups), group_ids(channels, groups, halves)
        wide = halves * channels
        self.above = AboveConv2d(in_channels, wide, kernel_size, current_row=not first)
        self.left = LeftConv2d(group_ids(in_channels, groups), wide_ids, kernel_size, mask_type)
        self.link = nn.Conv2d(wide, wide, 1, bias=False)
        self.above_cond = Conditioning(cond_shape, wide)
        self.left_cond = Conditioning(cond_shape, wide)
        self.skip = PixelLinear(ids, ids, bias=False) if skip else None
        self.out = None if last else PixelLinear(ids, ids, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.activate = gate if gated else torch.relu
        self.residual = residual and not first
        self.groups, self.halves, self.channels = groups, halves, channels

    def forward(
        self, v: Tensor, a: Tensor, h: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        v = self.above_cond(self.above(v), h)
        gated = self.activate(self.left_cond(self.left(a) + self.link(v), h))
        gated = self.dropout(gated)
        skip = self.skip(gated) if self.skip is not None else None
        if self.out is None:
            return v, a, skip
        out = self.out(gated)
        return self.activate(v), a + out if self.residual else out, skip


class GatedScan(Scan):
    """The cached scan of a `GatedPixelCNN`."""

    def __init__(self, decoder: GatedPixelCNN, h: Tensor | None, num: int):
        _, height, width = decoder.image_shape
        h = fit_map(h, (height, width), decoder.resize)
        self.decoder, self.num = decoder, num
        layers = cast(list[GatedLayer], list(decoder.layers))
        self.layers = [_LayerScan(layer, h, num, width) for layer in layers]
        weight = layers[0].left.weight
        self.row_input = weight.new_zeros(num, layers[0].above.in_channels, 1, width)
        channels, bounds = layers[0].channels, self.layers[0].bounds
        # The gated features of all layers side by side: their summed skips are one product.
        self.gated = weight.new_zeros(num, len(layers) * channels)
        for index, layer in enumerate(self.layers):
            layer.place(self.gated[:, index * channels : (index + 1) * channels])
        skips = [
            layer.skip.causal_weight()[:, :, 0, 0]
            if layer.skip is not None
            else weight.new_zeros(channels, channels)
            for layer in layers
        ]
        joined = torch.cat(skips, dim=1).t()
        self.skip_weights = [joined[:, a:b].contiguous() for a, b in pairwise(bounds)]
        self.features = weight.new_zeros(num, channels)
        self.bounds = bounds
        self.head = HeadScan(decoder.head, h, num)
        self.output = weight.new_zeros(0)
        self.dtype = weight.dtype

    def params(self, row: int, col: int, channel: int) -> Tensor:
        decoder = self.decoder
        if col == channel == 0:
            self._begin_row(row)
        window = self.layers[0].window
        if channel < decoder.groups:
            following = [*self.layers[1:], None]
            for layer, after in zip(self.layers, following, strict=True):
                layer.step(col, channel, after)
            part = self.features[:, self.bounds[channel] : self.bounds[channel + 1]]
            torch.mm(self.gated, self.skip_weights[channel], out=part)
            part.relu_()
        if channel < decoder.head.groups:
            embedded = window.buffer[:, window.left + col]
            self.output = self.head.step(self.features, embedded, row, col, channel)
        return self.output

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        embed = self.decoder.embed
        vector = embed.channel(values, channel, self.dtype)
        window = self.layers[0].window
        span = slice(channel * embed.dim, (channel + 1) * embed.dim)
        window.buffer[:, window.left + col, span] = vector
        self.row_input[:, span, 0, col] = vector

    def _begin_row(self, row: int) -> None:
        # The first layer sees strictly earlier rows: what was pushed in the row before.
        if row:
            self.layers[0].rows.push(self.row_input)
        above = None
        for layer in self.layers:
            if above is not None:
                layer.rows.push(above)
            above = layer.begin_row(row)


class _LayerScan:
    """One `GatedLayer` within a scan: a row of the vertical stack, a group of the horizontal one.

    Output channels are reordered so that a channel group lies together: its tanh half, then its
    sigmoid half.
    """

    def __init__(self, layer: GatedLayer, h: Tensor | None, num: int, width: int):
        self.layer, self.halves = layer, layer.halves
        self.bounds = group_bounds(layer.channels, layer.groups)
        halves = layer.halves
        order = torch.cat(
            [
                torch.arange(a, b) + half * layer.channels
                for a, b in pairwise(self.bounds)
                for half in range(halves)
            ]
        ).to(layer.left.weight.device)
        wide_bounds = [halves * bound for bound in self.bounds]
        in_bounds = group_bounds(layer.left.in_channels, layer.groups)
        self.rows = RowCache(layer.above, num, width)
        self.window = LeftWindow(layer.left, in_bounds, order, wide_bounds, num, width)
        self.above_bias = layer.above_cond.bias(h)
        left_bias = layer.left_cond.bias(h)
        self.left_bias = None if left_bias is None else left_bias[:, order]
        self.link_weight = layer.link.weight.detach()[order]
        assert layer.left.bias is not None
        self.link_bias = layer.left.bias.detach()[order]
        wide = halves * layer.channels
        weight = layer.left.weight
        self.bias = weight.new_zeros(num, width, wide)
        self.biases = [
            [self.bias[:, col, a:b] for a, b in pairwise(wide_bounds)] for col in range(width)
        ]
        self.pre = [weight.new_zeros(num, b - a) for a, b in pairwise(wide_bounds)]
        if layer.out is not None:
            out = layer.out.causal_weight().detach()[:, :, 0, 0]
            self.out_weights = [out[a:b, :b].t().contiguous() for a, b in pairwise(self.bounds)]

    def place(self, gated: Tensor) -> None:
        """Take the (B, F) slice in which this layer's gated features are to stand."""
        self.gated = [gated[:, a:b] for a, b in pairwise(self.bounds)]
        self.seen = [gated[:, :b] for b in self.bounds[1:]]

    def begin_row(self, row: int) -> Tensor:
        """The row of the vertical stack: keep its part of the horizontal one, return its output."""
        v = _add_row(self.rows.output(), self.above_bias, row)
        link = F.conv2d(v, self.link_weight, self.link_bias)
        self.bias.copy_(_add_row(link, self.left_bias, row)[:, :, 0].transpose(1, 2))
        return self.layer.activate(v)

    def step(self, col: int, group: int, after: _LayerScan | None) -> None:
        """One channel group of one pixel, written into the next layer's window."""
        window, pre, gated = self.window, self.pre[group], self.gated[group]
        torch.addmm(
            self.biases[col][group], window.windows[col][group], window.weights[group], out=pre
        )
        if self.halves == 2:
            half = pre.shape[1] // 2
            pre[:, :half].tanh_()
            torch.ops.aten.glu.out(pre, 1, out=gated)
        else:
            torch.clamp_min(pre, 0, out=gated)
        if after is None:
            return
        slot = after.window.slots[col][group]
        if self.layer.residual:
            own = window.slots[col][group]
            torch.addmm(own, self.seen[group], self.out_weights[group], out=slot)
        else:
            torch.mm(self.seen[group], self.out_weights[group], out=slot)


def normalise_weights(module: nn.Module) -> None:
    """Weight normalisation (Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868) of all
    convolutions of a module."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d):
            weight_norm(part)


def _add_row(x: Tensor, bias: Tensor | None, row: int) -> Tensor:
    """x (B, F, 1, W) plus a bias (B, F, 1, 1), or row `row` of one (B, F, H, W)."""
    if bias is None:
        return x
    return x + (bias if bias.shape[2] == 1 else bias[:, :, row : row + 1])
