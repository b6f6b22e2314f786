"""Images and labels as .npy files, which `pipelines.compress` reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from einops import rearrange

from pipelines.data.array_files import map_npy
from pipelines.data.levels import read_levels
from pipelines.runtime.errors import DataError


def read_images(file: Path, shape: tuple[int, int, int], levels: int) -> tuple[np.ndarray, str]:
    """Return images (N, C, H, W), memory-mapped, and their layout in the file.

    Raises:
        DataError: it is not an array of images that this run's model can code.
    """
    array = map_npy(file)
    carried = read_levels(file)
    if carried not in (None, levels):
        raise DataError(
            f"{file} carries images of {carried} levels, this run's model codes {levels}: export "
            "them from this run, or quantize them as in training"
        )
    channels, height, width = shape
    wanted = f"(N, {channels}, {height}, {width})"
    if array.dtype != dtype_of(levels):
        expected = dtype_of(levels)
        raise DataError(f"{file} holds {array.dtype}, expected {expected} levels {wanted}")
    if array.shape[1:] == shape:
        images, layout = array, "NCHW"
    elif channels == 1 and array.shape[1:] == (height, width):
        images, layout = rearrange(array, "n h w -> n 1 h w"), "NHW"
    elif array.shape[1:] == (height, width, channels):
        images, layout = rearrange(array, "n h w c -> n c h w"), "NHWC"
    else:
        raise DataError(f"{file} has shape {array.shape}, expected {wanted}, as this run's images")
    if len(images) == 0:
        raise DataError(f"{file} holds no images")
    for start in range(0, len(images), 1024) if levels != 256 else ():
        part = images[start : start + 1024]
        for found in (part.min(axis=(1, 2, 3)), part.max(axis=(1, 2, 3))):
            wrong = (found < 0) | (found >= levels)
            if wrong.any():
                worst = int(np.argmax(wrong))
                raise DataError(
                    f"{file}: image {start + worst} has level {found[worst]}, this run's model "
                    f"codes levels 0..{levels - 1}: quantize the images as in training"
                )
    return images, layout


def dtype_of(levels: int) -> np.dtype:
    """Return the dtype of images in files: uint8 for up to 256 levels, else int64."""
    return np.dtype("|u1" if levels <= 256 else "<i8")


def read_labels(file: Path, count: int, num_classes: int) -> np.ndarray:
    """Return labels (N,) int64 for `count` images.

    Raises:
        DataError: they are not `count` integers in 0..num_classes-1.
    """
    labels = map_npy(file)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{file} holds {labels.dtype} of shape {labels.shape}, expected {count} integers, one "
            "for each image"
        )
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"{file} has labels {labels.min()}..{labels.max()}, this run's model has "
            f"0..{num_classes - 1}"
        )
    return labels


def write_header(
    stream: BinaryIO,
    count: int,
    shape: tuple[int, int, int],
    levels: int,
    layout: str = "NCHW",
) -> None:
    """Write the header of an .npy file of `count` images of shape (C, H, W)."""
    channels, height, width = shape
    shapes = {
        "NCHW": (channels, height, width),
        "NHW": (height, width),
        "NHWC": (height, width, channels),
    }
    header = {
        "descr": dtype_of(levels).str,
        "fortran_order": False,
        "shape": (count, *shapes[layout]),
    }
    np.lib.format.write_array_header_1_0(stream, header)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """Return images (B, C, H, W) in the layout of a file."""
    return np.ascontiguousarray(rearrange(x, "n c h w -> n h w c") if layout == "NHWC" else x)
