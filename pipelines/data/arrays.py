"""Data sets that lie in array files: npz, npy, the course's pickles, binarised MNIST.

No reader runs code that a file brings: `allow_pickle` is off, and unpickling admits arrays alone.
"""

from __future__ import annotations

import math
import mmap
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.raw import DataError, Raw, RawSplit, folder_of, source_of

if TYPE_CHECKING:
    from pipelines.data.sets import DataConfig


def read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an npz, all or those of these names; pickled objects are never loaded.

    Raises:
        DataError: the file is damaged, or holds anything but plain arrays
    """
    try:
        # opened here, since np.load leaves a damaged file open
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            wanted = names or archive.files
            return {name: archive[name] for name in archive.files if name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged, or holds pickled objects, which are not loaded ({error}): "
            "save plain arrays by np.savez"
        ) from error


def require(arrays: dict[str, np.ndarray], path: Path, *names: str) -> None:
    """Raise a DataError unless all these arrays are there."""
    for name in names:
        if name not in arrays:
            found = ", ".join(arrays) or "nothing"
            raise DataError(f"{path} has no array '{name}' (it has {found}): add it")


def batch_labels(path: Path, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels 1..num_classes of an npz batch, counted from 0."""
    if labels.min() < 1 or labels.max() > num_classes:
        found = f"{labels.min()}..{labels.max()}"
        raise DataError(f"{path}: labels {found} are not within 1..{num_classes}: fetch it again")
    return labels.astype(np.int64) - 1


def binarized_mnist(config: DataConfig) -> Raw:
    """The statically binarised MNIST that the literature scores: 50,000 / 10,000 / 10,000.

    Read from `binarized_mnist.npz` (`train`, `valid`, `test`: packed bits (N, 98), or (N, 784)), or
    from the original `binarized_mnist_{train,valid,test}.amat`.
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
    characters = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    return _binary_images(path, characters[characters > ord(" ")] - ord("0"))


def _binary_images(path: Path, rows: np.ndarray) -> np.ndarray:
    if rows.size == 0 or rows.size % 784 or rows.max() > 1:
        raise DataError(f"{path} is damaged: expected rows of 784 zeros and ones; fetch it again")
    return rows.astype(np.uint8).reshape(-1, 1, 28, 28)


def npz(config: DataConfig) -> Raw:
    """Your own arrays: an npz with `train`, `test` or `valid` (or both), and `<split>_labels`.

    Images are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.
    """
    path = _one_file(source_of(config), "*.npz")
    return _from_arrays(config, path, read_npz(path))


def npy(config: DataConfig) -> Raw:
    """Your own arrays, memory-mapped: `train.npy`, `test.npy` or `valid.npy`, `*_labels.npy`."""
    root = folder_of(config)
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(root.glob("*.npy")):
        arrays[path.stem] = map_npy(path)
    return _from_arrays(config, root, arrays)


def map_npy(path: Path) -> np.ndarray:
    """The array in an npy, memory-mapped and read-only, for reading in random order.

    Raises:
        DataError: the file is damaged, or holds anything but a plain array
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype.hasobject:
                raise ValueError("its values are Python objects")
            offset, count = file.tell(), math.prod(shape)
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(buffer) < offset + count * dtype.itemsize:
            raise ValueError(f"it ends before its {count:,} values do")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is damaged, or holds pickled objects, which are not loaded ({error}): "
            "save a plain array by np.save"
        ) from error
    if hasattr(buffer, "madvise"):  # else every image drags in megabytes of its neighbours
        buffer.madvise(mmap.MADV_RANDOM)
    values = np.frombuffer(buffer, dtype, count, offset) if count else np.empty(0, dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def berkeley(config: DataConfig) -> Raw:
    """A pickle of Berkeley's CS294-158 course: `train`, `test`, and perhaps `*_labels`.

    Images are uint8 (N, H, W, C), colour ones in 4 levels. Only arrays are unpickled: a file with
    anything else in it is refused, and none of its code runs.
    """
    path = _one_file(source_of(config), "*.pkl")
    try:
        with open(path, "rb") as file:
            arrays = _ArrayUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} is not a pickle of arrays alone ({error}): do not use it"
        ) from error
    if not isinstance(arrays, dict) or not all(
        isinstance(a, np.ndarray) and not a.dtype.hasobject for a in arrays.values()
    ):
        raise DataError(f"{path} is not a dict of plain arrays: expected train, test, *_labels")
    return _from_arrays(config, path, arrays, color_levels=4)


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays of numbers, and no other object or function."""

    def find_class(self, module: str, name: str) -> Any:
        empty = np.empty(0)
        module = module.replace("numpy.core", "numpy._core")
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy._core.multiarray", "_reconstruct"): empty.__reduce__()[0],
            ("numpy._core.numeric", "_frombuffer"): empty.__reduce_ex__(5)[0],
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """What protocols below 3 need to hold bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


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
    config: DataConfig, path: Path, arrays: dict[str, np.ndarray], color_levels: int = 256
) -> Raw:
    require(arrays, path, "train")
    if "test" not in arrays and "valid" not in arrays:
        raise DataError(f"{path} has no array 'test' or 'valid': models are scored on one of them")
    splits = {}
    num_classes = 0
    for name in ("train", "valid", "test"):
        if name not in arrays:
            continue
        labels = arrays.get(f"{name}_labels")
        if labels is not None:
            if labels.dtype.kind not in "iu" or labels.size == 0:
                raise DataError(f"{path}: '{name}_labels' is {labels.dtype}, expected integers")
            labels = labels.reshape(-1).astype(np.int64)
            num_classes = num_classes or int(labels.max()) + 1
        splits[name] = RawSplit(channels_first(path, name, arrays[name]), labels)
    channels = splits["train"].pixels.shape[1]
    levels = config.native_levels or (color_levels if channels == 3 else 256)
    return Raw(splits, num_levels=levels, num_classes=num_classes)


def channels_first(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    """Images (N, H, W), (N, C, H, W) or (N, H, W, C) as (N, C, H, W), C being 1 or 3.

    Raises:
        DataError: they are none of these, or not uint8.
    """
    if images.dtype == bool:
        images = images.astype(np.uint8)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: '{name}' is {images.dtype} {images.shape}, expected uint8 (N, H, W), "
            "(N, C, H, W) or (N, H, W, C): convert it to levels first"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return np.moveaxis(images, 3, 1)
    raise DataError(f"{path}: '{name}' {images.shape} has neither 1 nor 3 channels: convert it")
