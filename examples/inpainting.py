"""Completion and inpainting: keep some sub-pixels and sample the others.

    python examples/inpainting.py

A PixelCNN samples in raster order, so the pixels that are kept above and to the left influence the
samples. Pixels that are kept below and to the right stay unchanged, but earlier pixels don't see
them. The picture has three parts: the upper half is kept, the left half, and a frame around a hole.
Each part shows digits, their kept pixels (the rest is black), and three completions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro
from sklearn.datasets import load_digits

from decoders import GatedPixelCNN
from pipelines import grid, save_picture


def masks() -> dict[str, torch.Tensor]:
    """Return masks of the sub-pixels to keep, (1, 8, 8) bool each."""
    upper, left = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    upper[:, :4], left[:, :, :4] = True, True
    frame = torch.ones(1, 8, 8, dtype=torch.bool)
    frame[:, 2:6, 2:6] = False
    return {"upper half": upper, "left half": left, "frame": frame}


def main(steps: int = 600, out: Path = Path("inpainting.png")) -> None:
    """Train on scikit-learn's digits, then complete some that were not seen.

    Args:
        steps: optimizer steps.
        out: where the picture goes.
    """
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images).to(torch.uint8).unsqueeze(1)
    train, test = images[:1437], images[1437:1449]
    decoder = GatedPixelCNN(
        (1, 8, 8), num_levels=17, hidden_channels=32, num_layers=4, kernel_size=3, dropout=0.1
    )
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-3)
    for step in range(steps):
        loss = -decoder(train[torch.randint(len(train), (64,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 5) == 0:
            print(f"step {step:4d}  {loss.item():.1f} nats")

    rows = []
    for name, mask in masks().items():
        completions = [decoder.sample(num=len(test), known=(test, mask)) for _ in range(3)]
        kept = all(torch.equal(drawn[:, mask], test[:, mask]) for drawn in completions)
        print(f"{name}: {int(mask.sum())} of 64 pixels kept, all as they were: {kept}")
        rows += [test, test * mask, *completions]
    save_picture(grid(torch.cat(rows), num_levels=17, columns=len(test)), out)
    print(f"{out}: digits, what is kept, three completions; for each of three masks")


if __name__ == "__main__":
    tyro.cli(main)
