"""Small data sets on the disk, and the real ones where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig

REAL = Path(
    os.environ.get("PIXEL_DECODERS_DATA")
    or Path(__file__).resolve().parents[3].parent / "shared" / "data"
)


def real(name: str) -> str:
    """The folder of a real data set; skips the test where it is absent."""
    if not (REAL / name).exists():
        pytest.skip(f"{REAL / name} is absent: set PIXEL_DECODERS_DATA to the folder that has it")
    return str(REAL if name == "MNIST" else REAL / name)


def write_pngs(folder: Path, count: int, side: int = 64, mode: str = "RGB", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for index, image in enumerate(draws):
        Image.fromarray(image).convert(mode).save(folder / f"{seed}_{index:04d}.png")


def imagenet_folder(root: Path, side: int = 64) -> DataConfig:
    for split, count in (("train", 3), ("valid", 2)):
        for number, name in enumerate(("n01", "n02")):
            write_pngs(root / split / name, count, side, seed=number + 2 * (split == "valid"))
    return DataConfig("imagenet64", str(root))


def all_images(images) -> np.ndarray:
    return images.batch(np.arange(len(images))).x.numpy()


def arrays(path: Path, **changed: np.ndarray | None) -> DataConfig:
    draws = np.random.default_rng(0)
    content = {
        "train": draws.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8),
        "test": draws.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8),
        "train_labels": np.arange(40) % 4,
        "test_labels": np.arange(30) % 4,
    }
    content.update(changed)
    np.savez(path / "own.npz", **{name: a for name, a in content.items() if a is not None})
    return DataConfig("npz", str(path))


def write_image(path: Path, level: int = 0, side: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (side, side), level).convert(mode).save(path)
