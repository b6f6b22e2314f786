"""A plain PyTorch autoencoder, and the two lines that give it a PixelCNN for a decoder.

    python examples/own_autoencoder.py

Both are trained on scikit-learn's digits with the same encoder. The first has deconvolutions and
the mean squared error. In the second, two lines are changed. The picture shows digits in its first
row, the output of the first autoencoder for each code in the second, and below three samples each
from the second autoencoder's p(x | h): the mean of all images that a code allows, and instances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from sklearn.datasets import load_digits
from torch import Tensor, nn

from decoders import GatedPixelCNN, to_levels
from pipelines import grid, save_picture

CODE = 4


class MyEncoder(nn.Module):
    """Anything that maps images to codes: (B, 1, 8, 8) floats in [0, 1] to (B, CODE)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(256, CODE)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class MyDecoder(nn.Module):
    """Deconvolutions: a code to the one image that is right on average."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Linear(CODE, 256), nn.ReLU(), nn.Unflatten(1, (64, 2, 2))),
            *(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1), nn.Sigmoid()),
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.net(h)


def train(
    parts: list[nn.Module], loss_of: Callable[[Tensor], Tensor], data: Tensor, steps: int
) -> None:
    """Train with your own loop, which knows nothing about decoders."""
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=2e-3)
    for step in range(steps):
        loss = loss_of(data[torch.randint(len(data), (64,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 5) == 0:
            print(f"  step {step:4d}  loss {loss.item():.4f}")


def main(steps: int = 600, out: Path = Path("own_autoencoder.png")) -> None:
    """Train both, compare them, and draw.

    Args:
        steps: optimizer steps of each.
        out: where the picture goes.
    """
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images).float().unsqueeze(1) / 16
    data, test = images[:1437], images[1437:]

    print("deconvolutions, mean squared error")
    encoder, decoder = MyEncoder(), MyDecoder()
    train([encoder, decoder], lambda x: F.mse_loss(decoder(encoder(x)), x), data, steps)
    with torch.no_grad():
        blurred = decoder(encoder(test[:12]))
        print(f"  test mean squared error {F.mse_loss(decoder(encoder(test)), test).item():.4f}")

    print("PixelCNN, -log p(x | h) in nats per image")
    encoder = MyEncoder()
    # The swap, first line: the decoder.
    pixelcnn = GatedPixelCNN(
        (1, 8, 8), num_levels=17, cond_shape=(CODE,), hidden_channels=32, num_layers=4,
        kernel_size=3,
    )  # fmt: skip
    # The swap, second line: the loss.
    train(
        [encoder, pixelcnn], lambda x: -pixelcnn(to_levels(x, 17), h=encoder(x)).mean(), data, steps
    )
    with torch.no_grad():
        nats = -pixelcnn(to_levels(test, 17), h=encoder(test)).mean().item()
        print(f"  test, given code: {nats:.2f} nats, {nats / (64 * math.log(2)):.3f} bits/dim")
        draws = [pixelcnn.sample(encoder(test[:12])) for _ in range(3)]

    rows = [to_levels(test[:12], 17), to_levels(blurred, 17), *draws]
    save_picture(grid(torch.cat(rows), num_levels=17, columns=12), out)
    print(f"{out}: digits, deconvolutions, three draws of the PixelCNN")


if __name__ == "__main__":
    tyro.cli(main)
