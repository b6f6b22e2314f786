"""Time drawing from a logistic mixture by halving the levels against listing them all.

    python benchmarks/drawing.py [--threads 1]

Whole images, as a deconvolutional decoder draws them, and one pixel of each image of a batch, as a
scan does: 256 levels, ten components, the second of three channels, float32. Both ways are timed in
turns in one process, and the medians and their ratio are printed.
"""

from __future__ import annotations

import statistics
import time

import torch
import tyro

from decoders import Discrete, DiscretizedLogisticMixture

CASES = {"8 images of 64×64": (8, (64, 64), 3), "one pixel of 64 images": (64, (), 50)}


def measure(batch: int, size: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """Return median seconds of one draw, by halving and by listing."""
    head = DiscretizedLogisticMixture(256, 10)
    params = torch.randn(batch, head.num_params(3), *size)
    x = torch.randint(256, (batch, 3, *size), dtype=torch.uint8)
    noise = torch.rand(batch, *size)
    halving, listing = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        head.sample(params, x, 1, noise)
        halfway = time.perf_counter()
        Discrete.sample(head, params, x, 1, noise)
        halving.append(halfway - began)
        listing.append(time.perf_counter() - halfway)
    return statistics.median(halving), statistics.median(listing)


def main(threads: int = 1) -> None:
    """Time both ways.

    Args:
        threads: number of threads.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for name, case in CASES.items():
        halving, listing = measure(*case)
        print(f"{name:24s} {halving:.5f} s, {listing:.5f} s: {listing / halving:.0f} times as fast")


if __name__ == "__main__":
    tyro.cli(main)
