"""A GatedPixelCNN as the prior over the codes of a small VQ-VAE.

    python examples/vqvae_prior.py

    x ── convolutions ── nearest of 32 vectors ── codes (1, 4, 4) ── deconvolutions ── x
                                                    │
                                          GatedPixelCNN: p(codes)

The codes are images of integers, so a decoder of pixels can model them unchanged. The picture shows
digits, their reconstructions, and images decoded from samples of the prior. The last row, for
comparison, is decoded from codes that were drawn independently, with their frequencies.

Source: van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning (2017),
https://arxiv.org/abs/1711.00937.
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

from decoders import GatedPixelCNN, to_levels
from pipelines import grid, save_picture

CODES, FEATURES = 32, 16


class VQVAE(nn.Module):
    """Images (B, 1, 8, 8) in [0, 1] through a 4×4 grid of codes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, FEATURES, 1)),
        )
        self.codebook = nn.Parameter(torch.randn(CODES, FEATURES))
        self.decoder = nn.Sequential(
            *(nn.Conv2d(FEATURES, 64, 3, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 1, 3, padding=1), nn.Sigmoid()),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of images, (B, 1, 4, 4) uint8."""
        return self.nearest(self.encoder(x))

    def nearest(self, features: Tensor) -> Tensor:
        """Return the index of the nearest codebook vector at each place, (B, 1, 4, 4) uint8."""
        flat = rearrange(features, "b f h w -> b (h w) f")
        codes = torch.cdist(flat, self.codebook.expand(len(flat), -1, -1)).argmin(dim=2)
        return rearrange(codes, "b (h w) -> b 1 h w", h=features.shape[2]).to(torch.uint8)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the codebook vectors of codes, (B, F, 4, 4)."""
        return rearrange(self.codebook[codes.long()], "b 1 h w f -> b f h w")

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images of codes, (B, 1, 8, 8)."""
        return self.decoder(self.vectors(codes))

    def loss(self, x: Tensor) -> Tensor:
        """Return reconstruction error plus codebook and commitment losses."""
        features = self.encoder(x)
        chosen = self.vectors(self.nearest(features))
        # Straight through: the gradient passes the rounding as if it were not there.
        restored = self.decoder(features + (chosen - features).detach())
        pull = F.mse_loss(chosen, features.detach()) + 0.25 * F.mse_loss(features, chosen.detach())
        return F.mse_loss(restored, x) + 0.1 * pull

    @torch.no_grad()
    def revive(self, x: Tensor) -> None:
        """Move vectors that no place of these images uses to the features of some."""
        features = rearrange(self.encoder(x), "b f h w -> (b h w) f")
        used = torch.bincount(self.encode(x).flatten().long(), minlength=CODES) > 0
        fresh = features[torch.randint(len(features), (CODES,))]
        self.codebook.copy_(torch.where(used.unsqueeze(1), self.codebook, fresh))


def main(steps: int = 600, out: Path = Path("vqvae_prior.png")) -> None:
    """Train the VQ-VAE, then the prior over its codes, then draw.

    Args:
        steps: optimizer steps of each.
        out: where the picture goes.
    """
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images).float().unsqueeze(1) / 16
    data, test = images[:1437], images[1437:]

    vqvae = VQVAE()
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=2e-3)
    for step in range(steps):
        x = data[torch.randint(len(data), (64,))]
        if step % 20 == 0 and step < steps // 2:
            vqvae.revive(x)
        loss = vqvae.loss(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        codes, test_codes = vqvae.encode(data), vqvae.encode(test)
        error = F.mse_loss(vqvae.decode(test_codes), test).item()
    print(f"VQ-VAE: test mean squared error {error:.4f}, {len(codes.unique())} of {CODES} codes")

    prior = GatedPixelCNN(
        (1, 4, 4), num_levels=CODES, hidden_channels=32, num_layers=3, kernel_size=3,
        first_kernel_size=3, embedding_dim=FEATURES, dropout=0.2,
    )  # fmt: skip
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    for _ in range(steps):
        loss = -prior(codes[torch.randint(len(codes), (64,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frequencies = (torch.bincount(codes.flatten().long(), minlength=CODES) + 1).float()
    frequencies /= frequencies.sum()
    with torch.no_grad():
        nats = -prior.eval()(test_codes).mean().item()
        alone = -frequencies.log()[test_codes.long()].sum(dim=(1, 2, 3)).mean().item()
        print(
            f"prior: {nats / math.log(2):.1f} bits for the 16 codes of a test image, "
            f"{alone / math.log(2):.1f} by their frequencies alone"
        )
        by_frequency = torch.multinomial(frequencies, 12 * 16, replacement=True).view(12, 1, 4, 4)
        rows = [
            test[:12], vqvae.decode(test_codes[:12]),
            vqvae.decode(prior.sample(num=12)), vqvae.decode(by_frequency),
        ]  # fmt: skip
    save_picture(grid(to_levels(torch.cat(rows), 17), num_levels=17, columns=12), out)
    print(f"{out}: digits, reconstructions, draws of the prior, of the frequencies")


if __name__ == "__main__":
    tyro.cli(main)
