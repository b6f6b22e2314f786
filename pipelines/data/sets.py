"""The table of data sets, and their options.

    --data, --data-dir -> reader (sources, arrays, layouts) -> Raw -> prepare -> Images -> Batch

A new data set is a reader, one name in `DataName` and one row in `DATA_SETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pipelines.data import arrays, layouts, noise, sources
from pipelines.data.images import Batch, Images, to_display
from pipelines.data.prepare import prepare
from pipelines.data.raw import DataError, Raw

__all__ = [
    "DATA_SETS",
    "Batch",
    "Condition",
    "DataConfig",
    "DataError",
    "DataName",
    "Images",
    "Splits",
    "load",
    "order",
    "to_display",
]

DataName = Literal[
    "digits",
    "shapes",
    "shapes_color",
    "mnist",
    "mnist_color",
    "fashion_mnist",
    "kmnist",
    "emnist",
    "binarized_mnist",
    "omniglot",
    "cifar10",
    "svhn",
    "celeba",
    "imagenet32",
    "imagenet64",
    "folder",
    "npz",
    "npy",
    "berkeley",
]
Condition = Literal[
    "none",
    "label",
    "mask",
    "keypoints",
    "caption",
    "label+mask",
    "label+keypoints",
    "caption+mask",
    "caption+keypoints",
]


@dataclass(frozen=True)
class DataConfig:
    """What to read and what to make of it."""

    data: DataName = "digits"
    """The data set; digits and the shapes are built in, the others are read from --data-dir."""
    data_dir: str = "~/data"
    """The folder that holds the data set, or the file where it is one."""
    levels: int = 0
    """Quantise to so many levels, x * levels // native (0: the data set's own)."""
    binarize: Literal["none", "threshold", "dynamic"] = "none"
    """Make images binary: grey above half, or drawn with the grey as probability: anew for every
    training batch, and once and for all for evaluation."""
    limit: int = 0
    """Use N images of each split (0: all), drawn with seed 0, stratified by label where there are
    labels: the same ones every time."""
    condition: Condition = "none"
    """What each image comes with; two joined by a plus are given as a pair."""
    gray: bool = False
    """Turn colour into grey (ITU-R 601); image files of any kind are admitted."""
    rgb: bool = False
    """Turn grey, palette, RGBA and CMYK image files into RGB."""
    background: str = ""
    """Color under the transparent pixels of image files: white, black or r,g,b (default: they are
    an error)."""
    pad: int = 0
    """Add so many pixels of level 0 on every side."""
    image_size: int = 0
    """Crop image files at the centre and resize them to this side (0: they must have one size)."""
    native_levels: int = 0
    """How many levels your own arrays (npz, npy, berkeley) have (0: 256 for bytes, berkeley in
    colour 4; of wider integers as many as the highest level needs)."""
    cache_dir: str = ""
    """Where image files are kept packed (default: .packed in the data folder, or where that can't
    be written $XDG_CACHE_HOME or ~/.cache)."""
    skip_damaged: bool = False
    """Train without the image files that can't be decoded, and list them; never in evaluation."""


class Splits(NamedTuple):
    """The splits of one data set; `test` is the one that results are scored on."""

    train: Images
    test: Images
    valid: Images | None = None


class DataSet(NamedTuple):
    """One row of the table: who reads it, and which of the special options it honours."""

    read: Callable[[DataConfig], Raw]
    options: frozenset[str] = frozenset()


_PACKED = frozenset({"cache_dir"})
_FILES = _PACKED | {"rgb", "background", "skip_damaged"}
_RESIZED = _FILES | {"image_size"}
_ARRAYS = frozenset({"native_levels"})

DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(sources.digits),
    "shapes": DataSet(sources.drawn_shapes),
    "shapes_color": DataSet(sources.drawn_shapes),
    "mnist": DataSet(sources.idx_files),
    "mnist_color": DataSet(sources.color_mnist),
    "fashion_mnist": DataSet(sources.idx_files),
    "kmnist": DataSet(sources.idx_files),
    "emnist": DataSet(sources.idx_files),
    "binarized_mnist": DataSet(arrays.binarized_mnist),
    "omniglot": DataSet(layouts.omniglot, _PACKED | {"image_size"}),
    "cifar10": DataSet(sources.cifar10),
    "svhn": DataSet(sources.svhn),
    "celeba": DataSet(layouts.celeba, _PACKED | {"image_size"}),
    "imagenet32": DataSet(layouts.imagenet, _FILES),
    "imagenet64": DataSet(layouts.imagenet, _FILES),
    "folder": DataSet(layouts.folder, _RESIZED),
    "npz": DataSet(arrays.npz, _ARRAYS),
    "npy": DataSet(arrays.npy, _ARRAYS),
    "berkeley": DataSet(arrays.berkeley, _ARRAYS),
}


def load(config: DataConfig) -> Splits:
    """Read a data set, packing or downloading it first if need be.

    Raises:
        DataError: the data are missing, damaged or not what the options say

    Example:
        >>> splits = load(DataConfig(data="digits", limit=100))
        >>> len(splits.test), splits.test.image_shape, splits.test.num_levels
        (100, (1, 8, 8), 17)
        >>> splits.test.variant
        'subset: 100 of 1,437 train / 100 of 360 test, drawn with seed 0, stratified by label'
    """
    if config.data not in DATA_SETS:
        raise DataError(f"--data {config.data} is unknown: choose from {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[config.data]
    for option in sorted(_RESIZED | _ARRAYS):
        if getattr(config, option) and option not in data_set.options:
            flag = option.replace("_", "-")
            raise DataError(f"--{flag} means nothing for {config.data}: leave it out")
    for option in ("levels", "limit", "pad", "image_size", "native_levels"):
        if getattr(config, option) < 0:
            raise DataError(f"--{option.replace('_', '-')} must not be negative")
    try:
        images = prepare(config, data_set.read(config))
    except OSError as error:
        raise DataError(
            f"{error.filename or config.data_dir} cannot be read or written "
            f"({error.strerror or error}): restore or delete it, or make it accessible"
        ) from error
    scored = "test" if "test" in images else "valid"
    return Splits(
        images["train"], images[scored], images.get("valid") if scored == "test" else None
    )


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` visits `n` images: a pure function, int64 (n,).

    Example:
        >>> order(0, 0, 5).tolist() == order(0, 0, 5).tolist() != order(0, 1, 5).tolist()
        True
    """
    return noise.permutation((seed, epoch), n)
