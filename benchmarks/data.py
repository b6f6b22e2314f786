"""Ratios of data handling: packing against decoding, and reading against training.

    python benchmarks/data.py [--images 80000] [--step-images 4]

It writes and removes about 2 GB in the temporary folder; TMPDIR=/dev/shm leaves the disk, which may
be slower than the cores, out of the rate of packing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.data import packing  # noqa: E402
from pipelines.data.decoding import Rules, decode  # noqa: E402
from pipelines.data.listing import CHUNK, list_folder  # noqa: E402
from pipelines.data.sets import DataConfig, load, order  # noqa: E402

SIDE = 64
RULES = Rules((3, SIDE, SIDE))


def write_photos(folder: Path, count: int, different: int = 2000) -> None:
    """PNGs about as large as photographs of this size: sums of waves, and some noise.

    Only the first are drawn, and the others are links to them, which cost as much to decode.
    """
    from PIL import Image

    draws = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for index in range(count):
        place = folder / f"{index % 100:03d}"
        place.mkdir(parents=True, exist_ok=True)
        if index >= different:
            first = index % different
            os.link(folder / f"{first % 100:03d}" / f"{first:07d}.png", place / f"{index:07d}.png")
            continue
        picture = np.zeros((SIDE, SIDE, 3))
        for _ in range(4):
            fy, fx = draws.normal(0, 2, 2)
            wave = np.sin(2 * np.pi * (fy * y + fx * x + draws.random()))
            picture += wave[..., None] * draws.normal(0, 30, 3)
        picture += 128 + draws.normal(0, 6, picture.shape)
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        image.save(place / f"{index:07d}.png", compress_level=1)


def decode_chunk(paths: list[str]) -> int:
    for path in paths:
        with open(path, "rb") as file:
            decode(file.read(), RULES)
    return len(paths)


def packing_rates(folder: Path, count: int, rounds: int = 3) -> tuple[float, float]:
    """Return images per second, best of some rounds: decoded on all cores, and packed."""
    listing = list_folder(folder)
    paths = [str(folder / path) for path in listing.paths]
    chunks = [paths[start : start + CHUNK] for start in range(0, count, CHUNK)]
    decoding, packed = [], []
    with multiprocessing.get_context("spawn").Pool(packing.cores()) as pool:
        pool.map(decode_chunk, chunks[: packing.cores()])  # start the processes, warm the files
        for _ in range(rounds):
            begin = time.perf_counter()
            pool.map(decode_chunk, chunks, chunksize=1)
            decoding.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            packing.pack(listing, RULES, folder.parent / "packed-set")
            packed.append(time.perf_counter() - begin)
            for path in folder.parent.glob("packed-*"):
                path.unlink()
    return count / min(decoding), count / min(packed)


def seconds(call: Callable[[int], object], repeats: int) -> float:
    """Return the median time of calls 0, 1, …, after each was made once."""
    for index in range(repeats):
        call(index)
    times = []
    for index in range(repeats):
        begin = time.perf_counter()
        call(index)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def reading(folder: Path, count: int, batch: int = 64) -> float:
    """Return seconds for one shuffled batch of a set of `count` images, its pages in memory.

    Most of the file is holes, which the system serves like data after the first access.
    """
    folder.mkdir()
    draws = np.random.default_rng(0)
    for split, images in (("train", count), ("valid", batch)):
        path = folder / f"{split}.npy"
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (images, 3, SIDE, SIDE))
        pixels[:: max(1, images // 100)] = draws.integers(0, 256, RULES.shape, dtype=np.uint8)
        del pixels
    train = load(DataConfig("imagenet64", str(folder))).train
    visits = order(0, 0, count)
    return seconds(lambda k: train.batch(visits[k * batch : (k + 1) * batch]), 200)


def training(images: int) -> float:
    """Return seconds per image of a training step of the default GatedPixelCNN at 64x64."""
    import torch

    from decoders import GatedPixelCNN

    torch.manual_seed(0)
    decoder = GatedPixelCNN(RULES.shape)
    optimizer = torch.optim.Adam(decoder.parameters())
    x = torch.randint(0, 256, (images, *RULES.shape), dtype=torch.uint8)

    def step(_: int) -> None:
        optimizer.zero_grad()
        (-decoder(x).mean()).backward()
        optimizer.step()

    return seconds(step, 2) / images


def main() -> None:
    """Print the ratios, each with its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=80_000, help="images to pack")
    parser.add_argument("--step-images", type=int, default=4, help="batch of the training step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "photos", options.images)
        decoding, packed = packing_rates(folder / "photos", options.images)
        print(f"decoding {decoding:,.0f} and packing {packed:,.0f} images/s on {packing.cores()}")
        print(f"packing / decoding rate of all cores: {packed / decoding:.2f} (0.80 or more)")
        small, large = reading(folder / "small", 13_000), reading(folder / "large", 1_000_000)
    print(f"a shuffled batch of 64: {1e3 * small:.2f} ms of 13,000, {1e3 * large:.2f} of 1,000,000")
    print(f"reading of 1,000,000 / of 13,000 images: {large / small:.2f} (about 1)")
    step = 64 * training(options.step_images)
    print(f"reading / training step of 64: {small / step:.1e}, {large / step:.1e} (under 2e-2)")


if __name__ == "__main__":
    main()
