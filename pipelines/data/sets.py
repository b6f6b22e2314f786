"""Table of data sets and their readers.

    --data, --data-dir -> reader (sources, arrays, layouts) -> Raw -> prepare -> Images -> Batch

A new data set is a reader, a row in `DATA_SETS`, and one in `pipelines.data.config.OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.data import arrays, layouts, noise, sources
from pipelines.data.config import DataConfig
from pipelines.data.images import Batch, Images, Splits, to_display
from pipelines.data.own import own
from pipelines.data.prepare import prepare
from pipelines.data.raw import Raw
from pipelines.runtime.errors import DataError

__all__ = [
    "DATA_SETS",
    "Batch",
    "DataConfig",
    "DataError",
    "Images",
    "Splits",
    "load",
    "load_data",
    "order",
    "to_display",
]


DATA_SETS: dict[str, Callable[[DataConfig], Raw]] = {
    "digits": sources.digits,
    "shapes": sources.drawn_shapes,
    "shapes_color": sources.drawn_shapes,
    "mnist": sources.idx_files,
    "mnist_color": sources.color_mnist,
    "fashion_mnist": sources.idx_files,
    "kmnist": sources.idx_files,
    "emnist": sources.idx_files,
    "binarized_mnist": arrays.binarized_mnist,
    "omniglot": layouts.omniglot,
    "cifar10": sources.cifar10,
    "svhn": sources.svhn,
    "celeba": layouts.celeba,
    "imagenet32": layouts.imagenet,
    "imagenet64": layouts.imagenet,
    "folder": layouts.folder,
    "npz": arrays.npz,
    "npy": arrays.npy,
    "berkeley": arrays.berkeley,
}
"""Reader of every data set, by its name in `pipelines.data.config.OPTIONS`."""


def load(config: DataConfig) -> Splits:
    """Read a data set, which is downloaded or packed first if necessary.

    Raises:
        DataError: the data are missing, damaged or not what the options say

    Example:
        >>> splits = load(DataConfig(data="digits", limit=100))
        >>> len(splits.test), splits.test.image_shape, splits.test.num_levels
        (100, (1, 8, 8), 17)
        >>> splits.test.variant
        'subset: 100 of 1,437 train / 100 of 360 test, drawn with seed 0, stratified by label'
    """
    try:
        images = prepare(config, DATA_SETS.get(config.data, own)(config))
    except OSError as error:
        raise DataError(
            f"{error.filename or config.data_dir} cannot be read or written "
            f"({error.strerror or error}): restore or delete it, or make it accessible"
        ) from error
    scored = "test" if "test" in images else "valid"
    return Splits(
        images["train"], images[scored], images.get("valid") if scored == "test" else None
    )


def load_data(data: str = "digits", **options: Any) -> Splits:
    """Read a data set by its name, with the options of `DataConfig`.

    Raises:
        UserError: there is no such data set, or it can't be read as the options say

    Example:
        >>> load_data("digits", binarize="threshold", limit=100).train.num_levels
        2
    """
    return load(DataConfig(data, **options))


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which epoch `epoch` visits `n` images: a pure function, int64 (n,).

    Example:
        >>> order(0, 0, 5).tolist() == order(0, 0, 5).tolist() != order(0, 1, 5).tolist()
        True
    """
    return noise.permutation((seed, epoch), n)
