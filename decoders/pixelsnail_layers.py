"""Layers of a `PixelSNAIL`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from decoders.conditioning import Conditioning
from decoders.layers import AboveConv2d, LeftConv2d, PixelNorm, ShiftedConv2d


class FirstConv(nn.Module):
    """The first layer: the rows above at full width, and the pixels to the left.

    Args:
        in_channels: channels of the embedded image, with its channel of ones.
        channels: F.
        kernel_size: the odd size k of the square kernel that both are parts of.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int):
        super().__init__()
        self.above = AboveConv2d(in_channels, channels, kernel_size, current_row=False)
        self.left = LeftConv2d([0] * in_channels, [0] * channels, kernel_size, "A")

    def forward(self, x: Tensor) -> Tensor:
        return self.above(x) + self.left(x)


class GatedResidual(nn.Module):
    """A gated residual block.

    ::

        x ── (norm) ── ELU ── conv ── (+ 1×1 ELU(a)) ── ELU ── dropout ── conv ── (+ h) ── p, q
        x + p · sigmoid(q)

    Args:
        channels: channels of x.
        kernel_size: 2 sees the pixel, that to the left and the two above them; 1 the pixel alone.
        extra: channels of a; 0 for none.
        norm: whether each pixel's features are normalized.
        dropout: in training.
        cond_shape: of h.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        extra: int = 0,
        norm: bool,
        dropout: float,
        cond_shape: tuple[int, ...] = (),
    ):
        super().__init__()
        kernel = kernel_size, kernel_size
        self.norm = PixelNorm(channels) if norm else None
        self.enter = ShiftedConv2d(channels, channels, kernel, left=True)
        self.extra = nn.Conv2d(extra, channels, 1, bias=False) if extra else None
        self.dropout = nn.Dropout(dropout)
        self.leave = ShiftedConv2d(channels, 2 * channels, kernel, left=True)
        self.cond = Conditioning(cond_shape, 2 * channels)
        # Blocks begin near the identity, which trains deep stacks without normalized weights.
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, x: Tensor, a: Tensor | None = None, h: Tensor | None = None) -> Tensor:
        z = self.enter(F.elu(x if self.norm is None else self.norm(x)))
        if self.extra is not None and a is not None:
            z = z + self.extra(F.elu(a))
        z = self.leave(self.dropout(F.elu(z)))
        return x + F.glu(self.cond(z, h), dim=1)


class Attention(nn.Module):
    """Attention of each pixel to all strictly earlier ones.

    ::

        features, place ────────── residual ── 1×1 ── query ┐
        features, place, image ─── residual ── 1×1 ── key, value ── values of the pixels before

    Features of a pixel know the pixels before it and not itself: keys and values are given the
    image itself, or the last pixel of the row above would be in nobody's reach.

    Besides the earlier pixels there is one place with a key and a value of zeros. It is all that
    the first pixel sees, and others may turn to it where nothing fits.

    Args:
        in_channels: channels of the embedded image.
        channels: of the features.
        heads: attended separately; they divide the following two.
        key_channels: of queries and keys, all heads together.
        value_channels: of values, all heads together.
        norm: see `GatedResidual`.
        dropout: see `GatedResidual`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        heads: int,
        key_channels: int,
        value_channels: int,
        norm: bool,
        dropout: float,
    ):
        super().__init__()
        self.heads, self.key_channels, self.value_channels = heads, key_channels, value_channels
        seen = channels + PLACE
        context = seen + in_channels
        self.ask = GatedResidual(seen, 1, norm=norm, dropout=dropout)
        self.query = nn.Conv2d(seen, key_channels, 1)
        self.tell = GatedResidual(context, 1, norm=norm, dropout=dropout)
        self.key_value = nn.Conv2d(context, key_channels + value_channels, 1)

    def forward(self, features: Tensor, place: Tensor, image: Tensor) -> Tensor:
        """Return the attended values (B, value_channels, H, W)."""
        seen = torch.cat([features, place], dim=1)
        query = self.query(self.ask(seen))
        told = self.key_value(self.tell(torch.cat([seen, image], dim=1)))
        key, value = told.split([self.key_channels, self.value_channels], dim=1)
        # Each pixel is given the place of the one before it: "up to and including" is "before".
        query = self._by_head(query)
        key, value = (_one_later(self._by_head(part)) for part in (key, value))
        scale = query.shape[-1] ** -0.5
        width = max(query.shape[-1], value.shape[-1])
        with _kernel(value):
            # Kernels that never hold all scores at once ask for heads of one width.
            out = F.scaled_dot_product_attention(
                _widened(query, width), _widened(key, width), _widened(value, width),
                is_causal=True, scale=scale,
            )  # fmt: skip
        out = out[..., : value.shape[-1]].transpose(1, 2).flatten(2)  # (B, H · W, value_channels)
        return out.transpose(1, 2).unflatten(2, features.shape[2:])

    def _by_head(self, x: Tensor) -> Tensor:
        """Return (B, heads · d, H, W) as (B, heads, H · W, d), the features of a head together."""
        x = x.flatten(2).transpose(1, 2).contiguous()
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class AttentionBlock(nn.Module):
    """Gated residual blocks, and attention whose values enter through another one."""

    def __init__(
        self,
        channels: int,
        num_layers: int,
        attention: Attention,
        *,
        norm: bool,
        dropout: float,
        cond_shape: tuple[int, ...],
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            GatedResidual(channels, 2, norm=norm, dropout=dropout, cond_shape=cond_shape)
            for _ in range(num_layers)
        )
        self.attention = attention
        extra = attention.value_channels
        self.merge = GatedResidual(channels, 1, extra=extra, norm=norm, dropout=dropout)

    def forward(self, x: Tensor, place: Tensor, image: Tensor, h: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, h=h)
        return self.merge(x, self.attention(x, place, image))


PLACE = 2  # channels of `places`


def places(height: int, width: int, like: Tensor) -> Tensor:
    """Return each pixel's row and column, from -1/2 to 1/2 over the image, (2, H, W)."""
    rows, columns = (
        torch.arange(size, dtype=like.dtype, device=like.device) / size - 0.5
        for size in (height, width)
    )
    return torch.stack([rows[:, None].expand(-1, width), columns.expand(height, -1)])


def _one_later(x: Tensor) -> Tensor:
    """Return a sequence (B, heads, N, d) one place later, with zeros as the first."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def _widened(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[-1]))


def _kernel(x: Tensor) -> AbstractContextManager[Any]:
    """Choose plain mathematics within `torch.func`, whose transforms know no other kernel."""
    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x):  # pyright: ignore
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
