"""Data sets in array files: npz, npy, the course's pickles, binarized MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.data.array_files import guarded, map_npy, read_npz, read_pickle, whole_numbers
from pipelines.data.config import DataConfig
from pipelines.data.levels import read_levels
from pipelines.data.raw import Raw, RawSplit, folder_of, source_of
from pipelines.runtime.errors import DataError

MAX_LEVELS = 1 << 16

_SPLITS = ("train", "valid", "test")
_NAMES = {name + kind for name in _SPLITS for kind in ("", "_labels")}


def require(arrays: dict[str, np.ndarray], path: Path, *names: str) -> None:
    """Raise a DataError unless all these arrays are present."""
    for name in names:
        if name not in arrays:
            found = ", ".join(arrays) or "nothing"
            raise DataError(f"{path} has no array '{name}' (it has {found}): add it")


def batch_labels(path: Path, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the labels 1..num_classes of an npz batch, counted from 0."""
    labels = whole_numbers(path, "labels", labels).reshape(-1)
    if labels.size and (labels.min() < 1 or labels.max() > num_classes):
        found = f"{labels.min()}..{labels.max()}"
        raise DataError(f"{path}: labels {found} are not within 1..{num_classes}: fetch it again")
    return labels.astype(np.int64) - 1


def binarized_mnist(config: DataConfig) -> Raw:
    """Read the statically binarized MNIST of the literature: 50,000 / 10,000 / 10,000 images.

    In `binarized_mnist.npz` (`train`, `valid`, `test`: packed bits (N, 98), or (N, 784)), or the
    original `binarized_mnist_{train,valid,test}.amat`.
    Source: H. Larochelle, I. Murray, "The neural autoregressive distribution estimator", 2011.
    """
    root = source_of(config)
    path = root / "binarized_mnist.npz" if root.is_dir() else root
    splits = {}
    if path.exists():
        arrays = read_npz(path)
        require(arrays, path, "train", "valid", "test")
        for name in ("train", "valid", "test"):
            rows = arrays[name]
            if rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == 98:
                rows = np.unpackbits(rows, axis=1)
            splits[name] = RawSplit(_binary_images(path, rows))
    else:
        for name in ("train", "valid", "test"):
            splits[name] = RawSplit(_read_amat(root / f"binarized_mnist_{name}.amat"))
    return Raw(splits, num_levels=2)


def _read_amat(path: Path) -> np.ndarray:
    if not path.exists():
        raise DataError(
            f"{path} does not exist: --data-dir must hold binarized_mnist.npz or the three .amat"
        )
    characters = np.frombuffer(guarded(path, Path.read_bytes), dtype=np.uint8)
    return _binary_images(path, characters[characters > ord(" ")] - ord("0"))


def _binary_images(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return rows of 784 zeros and ones, of any type, as images; refuse anything else."""
    numbers = rows.dtype.kind in "iufb"
    if not numbers or rows.size == 0 or rows.size % 784 or ((rows != 0) & (rows != 1)).any():
        raise DataError(f"{path} is damaged: expected rows of 784 zeros and ones; fetch it again")
    return rows.astype(np.uint8).reshape(-1, 1, 28, 28)


def npz(config: DataConfig) -> Raw:
    """Read your own arrays: an npz with `train`, `test` or `valid` (or both), and `<split>_labels`.

    Images are integers (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.
    """
    path = _one_file(source_of(config), "*.npz")
    return _from_arrays(config, path, read_npz(path))


def npy(config: DataConfig) -> Raw:
    """Map your own arrays into memory: `train.npy`, `test.npy` or `valid.npy`, `*_labels.npy`."""
    root = folder_of(config)
    paths = [path for path in sorted(root.glob("*.npy")) if path.stem in _NAMES]
    arrays = {path.stem: map_npy(path) for path in paths}
    carried = {levels for path in paths if (levels := guarded(path, read_levels))}
    if len(carried) > 1:
        raise DataError(f"{root}: the arrays carry different numbers of levels, {sorted(carried)}")
    return _from_arrays(config, root, arrays, carried=next(iter(carried), 0))


def berkeley(config: DataConfig) -> Raw:
    """Read a pickle of Berkeley's CS294-158 course: `train`, `test`, and perhaps `*_labels`.

    Images are uint8 (N, H, W, C), color ones in 4 levels. Only arrays are unpickled: a file with
    anything else in it is refused, and none of its code runs.
    """
    path = _one_file(source_of(config), "*.pkl")
    return _from_arrays(config, path, read_pickle(path), color_levels=4)


def _one_file(root: Path, pattern: str) -> Path:
    if root.is_file():
        return root
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{root} must hold exactly one {pattern} (found: {names}): give the file itself as "
            "--data-dir"
        )
    return found[0]


def _from_arrays(
    config: DataConfig,
    path: Path,
    arrays: dict[str, np.ndarray],
    color_levels: int = 256,
    carried: int = 0,
) -> Raw:
    require(arrays, path, "train")
    if "test" not in arrays and "valid" not in arrays:
        raise DataError(f"{path} has no array 'test' or 'valid': models are scored on one of them")
    found = {name: arrays[name] for name in _SPLITS if name in arrays}
    splits = {}
    for name, images in found.items():
        labels = arrays.get(f"{name}_labels")
        if labels is not None:
            labels = whole_numbers(path, f"{name}_labels", labels).reshape(-1)
        splits[name] = RawSplit(channels_first(f"{path}: '{name}'", images), labels)
    default = color_levels if splits["train"].pixels.shape[1] == 3 else 256
    return Raw(splits, num_levels=_num_levels(config, path, found, default, carried))


def _num_levels(
    config: DataConfig, path: Path, images: dict[str, np.ndarray], default: int, carried: int
) -> int:
    """Return the number of levels: the flag's or the files' own, else `default` for bytes.

    Wider integers are index maps, with one level more than the highest.
    """
    if carried and config.native_levels not in (0, carried):
        raise DataError(
            f"{path} carries {carried} levels, not --native-levels {config.native_levels}: leave "
            "the flag out"
        )
    levels, source = config.native_levels or carried, "--native-levels"
    if not levels and all(one.dtype == np.uint8 for one in images.values()):
        return default
    if not levels:
        tops = {name: int(one.max()) for name, one in images.items() if one.size}
        highest = max(tops, key=lambda name: tops[name], default="train")
        levels, source = max(2, 1 + tops.get(highest, 0)), f"{path}: '{highest}'"
    if not 2 <= levels <= MAX_LEVELS:
        raise DataError(
            f"{source} has levels 0..{levels - 1}, expected 2 to {MAX_LEVELS:,} of them: renumber "
            "or quantize them"
        )
    return levels


def channels_first(name: str, images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W), (N, C, H, W) or (N, H, W, C) as (N, C, H, W), C being 1 or 3.

    Raises:
        DataError: they are none of these, or not integers.
    """
    if images.dtype == bool:
        images = images.view(np.uint8)
    if images.dtype.kind not in "iu" or images.ndim not in (3, 4):
        raise DataError(
            f"{name} is {images.dtype} {images.shape}, expected uint8 or other integers "
            "(N, H, W), (N, C, H, W) or (N, H, W, C): convert it to levels first"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return np.moveaxis(images, 3, 1)
    raise DataError(f"{name} {images.shape} has neither 1 nor 3 channels: convert it")
