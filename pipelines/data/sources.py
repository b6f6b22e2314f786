"""Readers of the built-in data sets, and of those that torchvision can download.

A reader takes the `DataConfig` and reads the data that `--data-dir` names. Options of all data sets
(levels, binarization, gray, padding, limit) are applied later, by `pipelines.data.prepare`.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data import batches, noise, shapes
from pipelines.data.array_files import check_memory, guarded, read_npz
from pipelines.data.arrays import batch_labels, require
from pipelines.data.config import DataConfig
from pipelines.data.raw import Raw, RawSplit, data_path
from pipelines.runtime.errors import DataError


def digits(config: DataConfig) -> Raw:
    """Return scikit-learn's digits, 8x8 with 17 levels: 1,437 train, and the last 360 test."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    pixels, labels = rows.reshape(-1, 1, 8, 8).astype(np.uint8), labels.astype(np.int64)
    train, test = slice(0, 1437), slice(1437, None)
    splits = {
        "train": RawSplit(pixels[train], labels[train]),
        "test": RawSplit(pixels[test], labels[test]),
    }
    return Raw(splits, num_levels=17, num_classes=10)


def drawn_shapes(config: DataConfig) -> Raw:
    """Draw 10,000 + 2,000 shapes: `shapes` binary, `shapes_color` in 4 levels per channel."""
    color = config.data == "shapes_color"
    splits = {}
    for name, start, stop in (("train", 0, 10_000), ("test", 10_000, 12_000)):
        splits[name] = RawSplit(**shapes.draw(np.arange(start, stop), color=color)._asdict())
    return Raw(
        splits,
        num_levels=4 if color else 2,
        num_classes=len(shapes.SHAPES),
        num_mask_classes=1 + len(shapes.SHAPES),
        caption_length=shapes.CAPTION_LENGTH,
    )


_IDX_FOLDERS = {
    "mnist": "MNIST",
    "mnist_color": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}


def idx_files(config: DataConfig) -> Raw:
    """Read the MNIST family in torchvision's layout, its raw files plain or gzipped.

    The files are read in place, so that a read-only `--data-dir` works; torchvision downloads them
    if they are absent. `emnist` is its `balanced` split of 47 classes, turned upright.
    """
    name = _IDX_FOLDERS[config.data]
    raw = data_path(config) / name / "raw"
    emnist = config.data == "emnist"
    prefixes = ("emnist-balanced-train", "emnist-balanced-test") if emnist else ("train", "t10k")
    files = [f"{p}-{kind}" for p in prefixes for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if not all(_idx_path(raw, file) for file in files):
        download(name, config, **({"split": "balanced"} if emnist else {"train": True}))
    splits = {}
    for split, prefix in zip(("train", "test"), prefixes, strict=True):
        pixels = _read_idx(raw, f"{prefix}-images-idx3-ubyte")[:, None]
        labels = _read_idx(raw, f"{prefix}-labels-idx1-ubyte").astype(np.int64)
        splits[split] = RawSplit(pixels.swapaxes(2, 3) if emnist else pixels, labels)
    return Raw(splits, num_levels=256, num_classes=47 if emnist else 10)


def color_mnist(config: DataConfig) -> Raw:
    """Tint MNIST in 4 levels per channel, each digit with one of 37 saturated colors.

    The tint is a function of split and index. A pixel of gray level x and tint t in 0..3 has the
    level floor(4 x t / 766) in each channel.
    """
    raw = idx_files(config)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    tints = grid[grid.max(1) == 3].astype(np.int32)
    splits = {}
    for number, (name, split) in enumerate(raw.splits.items()):
        chosen = tints[noise.integers((number,), np.arange(len(split.pixels)), len(tints))]
        colored = np.empty((len(split.pixels), 3, *split.pixels.shape[2:]), dtype=np.uint8)
        for channel in range(3):  # one at a time: the products need four bytes each
            scaled = split.pixels[:, 0] * (4 * chosen[:, channel, None, None])
            colored[:, channel] = scaled // 766
        splits[name] = split._replace(pixels=colored)
    return raw._replace(splits=splits, num_levels=4)


def download(name: str, config: DataConfig, **options: Any) -> Any:
    """Open a data set by torchvision's class, which downloads it if it is absent.

    Raises:
        DataError: it is absent and can't be downloaded, or is damaged
    """
    import torchvision

    root = data_path(config)
    try:
        return getattr(torchvision.datasets, name)(str(root), download=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{root} does not hold {name} as torchvision lays it out, and it could not be "
            f"downloaded ({reason}): put it there, or name another --data-dir"
        ) from error


def _idx_path(raw: Path, name: str) -> Path | None:
    """Return the plain or the gzipped file of this name."""
    for path in (raw / name, raw / f"{name}.gz"):
        if path.exists():
            return path
    return None


def _read_idx(raw: Path, name: str) -> np.ndarray:
    path = _idx_path(raw, name)
    if path is None:
        raise DataError(f"{raw / name} is missing: fetch it again")
    return guarded(path, _parse_idx)


def _parse_idx(path: Path) -> np.ndarray:
    """Return the bytes of an idx file, as many as its header says and no more."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        zero, kind, ndim = int.from_bytes(file.read(2), "big"), *file.read(2)
        if zero != 0 or kind != 8:
            raise ValueError("it is not an idx file of bytes")
        shape = tuple(np.frombuffer(file.read(4 * ndim), dtype=">u4", count=ndim).tolist())
        check_memory(f"the images of {path}", math.prod(shape))
        data = file.read(math.prod(shape) + 1)
    if len(data) != math.prod(shape):
        raise ValueError(f"it does not hold {' x '.join(map(str, shape))} values")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def cifar10(config: DataConfig) -> Raw:
    """Read CIFAR-10 from torchvision or npz batches (`train_data_batch_*`, `val_data`)."""
    root = data_path(config)
    if any(root.glob("*_data*.npz")):
        return _cifar10_batches(root)
    splits = {}
    for name in ("train", "test"):
        data = download("CIFAR10", config, train=name == "train")
        splits[name] = RawSplit(data.data.transpose(0, 3, 1, 2), np.array(data.targets, np.int64))
    return Raw(splits, num_levels=256, num_classes=10)


def _cifar10_batches(root: Path) -> Raw:
    splits = {}
    for split, pattern in (("train", "train_data_batch_*.npz"), ("test", "val_data*.npz")):
        paths = batches.find([root], pattern.split("_")[0])
        if not paths:
            raise DataError(f"{root} has no {pattern}: fetch the missing batches")
        arrays = [read_npz(path) for path in paths]
        for path, found in zip(paths, arrays, strict=True):
            require(found, path, "data", "labels")
            if found["data"].dtype != np.uint8 or found["data"].shape[1:] != (3072,):
                raise DataError(f"{path}: 'data' is not uint8 (N, 3072): fetch it again")
        pixels = np.concatenate([found["data"] for found in arrays]).reshape(-1, 3, 32, 32)
        columns = zip(paths, arrays, strict=True)
        labels = np.concatenate([batch_labels(path, a["labels"], 10) for path, a in columns])
        splits[split] = RawSplit(pixels, labels)
    counts = {name: len(split.pixels) for name, split in splits.items()}
    whole = counts == {"train": 50_000, "test": 10_000}
    listed = " / ".join(f"{count:,} {name}" for name, count in counts.items())
    variant = "" if whole else f"subset: first {listed}"
    return Raw(splits, num_levels=256, num_classes=10, variant=variant)


def svhn(config: DataConfig) -> Raw:
    """Read Street View House Numbers, cropped digits (73,257 train / 26,032 test)."""
    splits = {}
    for name in ("train", "test"):
        data = download("SVHN", config, split=name)
        splits[name] = RawSplit(data.data, data.labels.astype(np.int64))
    return Raw(splits, num_levels=256, num_classes=10)
