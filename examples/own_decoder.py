"""A decoder of your own: implement `params`, and log_prob, sampling and completion come with it.

    python examples/own_decoder.py

Here it is a small causal transformer over the sub-pixels in raster order. `check_causality` proves
that no sub-pixel sees itself or a later one; then it is trained on scikit-learn's digits, given
their labels, and ten of each class are drawn.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from sklearn.datasets import load_digits
from torch import Tensor, nn

from decoders import Categorical, FactorizedDecoder, check_causality
from encoders import LabelEmbedding
from pipelines import Model, grid, save_picture


class Block(nn.Module):
    """Causal self-attention and a small network, both residual: (B, T, F) to the same."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.mlp = nn.Sequential(
            nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b t (n h d) -> n b h t d", n=3, h=self.heads)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(rearrange(seen, "b h t d -> b t (h d)"))
        return x + self.mlp(self.norm2(x))


class PixelTransformer(FactorizedDecoder):
    """p(x | h) by a causal transformer over sub-pixels ordered by (row, column, channel)."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int,
        cond_shape: tuple[int, ...] = (),
        features: int = 48,
        num_layers: int = 2,
        heads: int = 4,
    ):
        super().__init__(image_shape, Categorical(num_levels), cond_shape)
        self.levels = nn.Embedding(num_levels, features)
        self.start = nn.Parameter(torch.zeros(features))
        self.places = nn.Parameter(0.02 * torch.randn(math.prod(image_shape), features))
        self.cond = nn.Linear(cond_shape[0], features) if cond_shape else None
        self.blocks = nn.Sequential(*(Block(features, heads) for _ in range(num_layers)))
        self.head = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, num_levels))

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Logits of every sub-pixel, (B, C * L, H, W)."""
        _, height, width = self.image_shape
        tokens = self.levels(rearrange(x, "b c h w -> b (h w c)").long())
        # Each place is shown the sub-pixel before it, the first one a learned start.
        shown = torch.cat([self.start.expand(len(x), 1, -1), tokens[:, :-1]], dim=1) + self.places
        if self.cond is not None:
            assert h is not None  # check_cond has refused a missing h
            shown = shown + self.cond(h).unsqueeze(1)
        logits = self.head(self.blocks(shown))
        return rearrange(logits, "b (h w c) l -> b (c l) h w", h=height, w=width)


def main(steps: int = 500, out: Path = Path("own_decoder.png")) -> None:
    """Check, train, score and sample the decoder.

    Args:
        steps: optimizer steps.
        out: where the picture goes.
    """
    torch.manual_seed(0)
    check_causality(PixelTransformer((3, 3, 4), num_levels=4, cond_shape=(5,)))
    print("causal: no sub-pixel of a 3x3x4 image sees itself or a later one")

    digits = load_digits()
    x = torch.tensor(digits.images).to(torch.uint8).unsqueeze(1)
    y = torch.tensor(digits.target)
    encoder = LabelEmbedding(num_classes=10, dim=16)
    decoder = PixelTransformer((1, 8, 8), num_levels=17, cond_shape=encoder.code_shape)
    model = Model(decoder, encoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        chosen = torch.randint(1437, (64,))
        loss = model(x[chosen], y[chosen]).distortion.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 5) == 0:
            print(f"step {step:4d}  {loss.item():.1f} nats")
    with torch.no_grad():
        nats = model(x[1437:], y[1437:]).distortion.mean().item()
    print(f"test, {model.kind}: {nats:.2f} nats, {nats / (64 * math.log(2)):.3f} bits/dim")

    drawn = model.sample(100, torch.arange(10).repeat_interleave(10))
    save_picture(grid(drawn, num_levels=17, columns=10), out)
    print(f"{out}: ten draws of each class, one row each")


if __name__ == "__main__":
    tyro.cli(main)
