"""Arrays, tensors and torch data sets of your own, as checked levels in memory.

arrays │ tensors │ map-style Dataset ── floats quantized, shapes and labels checked ──> Held
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from decoders import to_levels
from pipelines.data.array_files import check_memory, whole_numbers
from pipelines.data.arrays import MAX_LEVELS, channels_first
from pipelines.data.labels import MOST_CLASSES
from pipelines.runtime.errors import DataError
from pipelines.runtime.progress import progress

_BLOCK = 1024  # images quantized at a time
_MODES = ("1", "L", "RGB")  # of PIL images, whose arrays are levels


class Held(NamedTuple):
    """Images and labels of one split."""

    pixels: np.ndarray  # (N, C, H, W) integers 0..num_levels-1
    labels: np.ndarray | None  # (N,) int64, from 0
    num_levels: int


def hold_arrays(name: str, images: Any, labels: Any, num_levels: int | None) -> Held:
    """Check images and labels, and quantize floats.

    Args:
        name: what error messages call them.
        images: NumPy array or tensor (N, H, W), (N, C, H, W) or (N, H, W, C), C being 1 or 3:
            integer levels, or floats in [0, 1].
        labels: (N,) integers from 0, or None.
        num_levels: levels of the images (None: 256 for bytes, otherwise one more than the highest
            level; floats need it).

    Raises:
        DataError: they are something else.
    """
    found = _as_array(images)
    if found.ndim > 0 and len(found) == 0:
        raise DataError(f"{name} has no images: expected at least one")
    pixels = channels_first(name, _as_levels(name, found, num_levels))
    low, high = int(pixels.min()), int(pixels.max())
    native = num_levels or (256 if found.dtype == np.uint8 else max(2, high + 1))
    if not 2 <= native <= MAX_LEVELS:
        raise DataError(f"{name}: expected 2 to {MAX_LEVELS:,} levels, got {native:,}")
    if low < 0 or high >= native:
        raise DataError(
            f"{name}: expected levels 0..{native - 1}, got {low}..{high}: renumber them, or say "
            "how many there are with num_levels"
        )
    return Held(pixels, _as_labels(name, labels, len(pixels)), native)


def hold_dataset(name: str, dataset: Any, num_levels: int | None) -> Held:
    """Read a map-style torch `Dataset` of x or (x, y), once.

    Args:
        name: what error messages and the progress display call it.
        dataset: has a length and items. x is a tensor, array or PIL image (H, W), (C, H, W) or
            (H, W, C), of integer levels or floats in [0, 1]; y an integer label.
        num_levels: as for `hold_arrays`.

    Raises:
        DataError: it is something else, an item can't be read, or memory is too small.
    """
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"{name}: expected a map-style dataset, with len() and items, got a "
            f"{type(dataset).__name__}"
        ) from error
    if count == 0:
        raise DataError(f"{name} has no images: expected at least one")
    first, label = _item(name, dataset, 0)
    dtype = _as_levels(f"{name}[0]", first, num_levels).dtype
    if num_levels is not None and num_levels <= 256 and dtype.kind != "b":
        dtype = np.dtype(np.uint8)
    check_memory(f"{name}: its {count:,} images", count * first.size * dtype.itemsize)
    pixels, labels = np.empty((count, *first.shape), dtype), []
    for index in progress(range(count), count, f"reading {name}", unit="image"):
        x, y = (first, label) if index == 0 else _item(name, dataset, index)
        if (x.shape, x.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{name}[{index}] is {x.dtype} {list(x.shape)}, but {name}[0] is {first.dtype} "
                f"{list(first.shape)}: all images must have one shape and type"
            )
        levels = _as_levels(f"{name}[{index}]", x, num_levels)
        if levels.dtype != dtype:
            _check_range(f"{name}[{index}]", levels, num_levels or 256)
        pixels[index] = levels
        labels.append(y)
    if None in labels and any(one is not None for one in labels):
        raise DataError(f"{name}[{labels.index(None)}] has no label, unlike other images")
    return hold_arrays(name, pixels, None if None in labels else labels, num_levels)


def _item(name: str, dataset: Any, index: int) -> tuple[np.ndarray, int | None]:
    """Read one item: an image, and its label if it has one."""
    try:
        item = dataset[index]
    except Exception as error:  # whatever the user's code does
        raise DataError(f"{name}[{index}] raised {type(error).__name__}: {error}") from error
    x, y = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
    mode = getattr(x, "mode", None)  # of a PIL image; tensors have a method of this name
    if isinstance(mode, str) and mode not in _MODES:
        raise DataError(f"{name}[{index}] is a {mode} picture: convert it to L or RGB")
    array = _as_array(x)
    if array.ndim not in (2, 3):
        raise DataError(
            f"{name}[{index}] is {array.dtype} {list(array.shape)}, expected x or (x, y), with x "
            "(H, W), (C, H, W) or (H, W, C)"
        )
    if y is None:
        return array, None
    label = _as_array(y)
    if label.size != 1 or label.dtype.kind not in "iub":
        raise DataError(f"{name}[{index}] has the label {y!r}, expected an integer")
    return array, int(label.reshape(()))


def _as_array(values: Any) -> np.ndarray:
    """Return a NumPy array, of a tensor on any device too."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        return np.asarray(values)
    except ValueError:  # ragged lists
        return np.asarray(values, dtype=object)


def _as_levels(name: str, images: np.ndarray, num_levels: int | None) -> np.ndarray:
    """Return integers as they are, and floats in [0, 1] as levels round(x · (num_levels - 1))."""
    if images.dtype.kind != "f":
        return images
    if num_levels is None:
        raise DataError(f"{name}: floats need num_levels, such as 256 for photos")
    if not 2 <= num_levels <= MAX_LEVELS:
        raise DataError(f"{name}: expected 2 to {MAX_LEVELS:,} levels, got {num_levels:,}")
    levels = np.empty(images.shape, np.uint8 if num_levels <= 256 else np.int64)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        if np.isnan(block).any():
            raise DataError(f"{name} contains NaN: expected floats in [0, 1]")
        low, high = float(block.min()), float(block.max())
        if low < 0 or high > 1:
            raise DataError(
                f"{name}: expected floats in [0, 1], got {low:.4g}..{high:.4g}: rescale them, or "
                "pass integers as levels"
            )
        values = torch.from_numpy(np.ascontiguousarray(block, dtype=np.float64))
        levels[start : start + _BLOCK] = to_levels(values, num_levels).numpy()
    return levels


def _check_range(name: str, levels: np.ndarray, num_levels: int) -> None:
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high >= num_levels:
        raise DataError(f"{name}: expected levels 0..{num_levels - 1}, got {low}..{high}")


def _as_labels(name: str, labels: Any, count: int) -> np.ndarray | None:
    if labels is None:
        return None
    found = whole_numbers(name, "labels", _as_array(labels))
    if found.shape != (count,):
        raise DataError(f"{name}: expected {count} labels, got shape {list(found.shape)}")
    low, high = int(found.min()), int(found.max())
    if low < 0:
        raise DataError(f"{name}: expected labels from 0, got {low}: number the classes from 0")
    if high >= max(MOST_CLASSES, count):
        raise DataError(f"{name}: labels go up to {high:,}: number the classes from 0")
    return found.astype(np.int64)
