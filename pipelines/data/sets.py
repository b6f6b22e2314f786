"""The table of data sets, and their options.

    --data, --data-dir -> reader (pipelines.data.sources, arrays, layouts) -> Raw -> Images -> Batch

A new data set is a reader, one name in `DataName` and one row in `DATA_SETS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from encoders.text import tokenize
from pipelines.data import arrays, layouts, noise, packing, sources
from pipelines.data.images import Batch, Images, to_display
from pipelines.data.raw import DataError, Raw, RawSplit

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
    """Use the first so many images of each split (0: all)."""
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
    """How many levels your own arrays (npz, npy, berkeley) have (0: 256; berkeley in colour: 4)."""
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


_FILES = frozenset({"rgb", "background", "skip_damaged"})
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
    "omniglot": DataSet(layouts.omniglot, frozenset({"image_size"})),
    "cifar10": DataSet(sources.cifar10),
    "svhn": DataSet(sources.svhn),
    "celeba": DataSet(layouts.celeba, frozenset({"image_size"})),
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
        'subset: first 100 train / 100 test'
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
        raw = data_set.read(config)
    except OSError as error:
        raise DataError(
            f"{error.filename or config.data_dir} cannot be read or written "
            f"({error.strerror or error}): restore or delete it, or make it accessible"
        ) from error
    variant = _variant(raw, config.limit)
    images = {name: _images(config, raw, name, variant) for name in raw.splits}
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


def _variant(raw: Raw, limit: int) -> str:
    """The variant of the data set, with what `--limit` has left of it."""
    counts = {name: split.count or len(split.pixels) for name, split in raw.splits.items()}
    if not limit or all(count <= limit for count in counts.values()):
        return raw.variant
    listed = " / ".join(f"{min(count, limit):,} {name}" for name, count in counts.items())
    release = f" of {raw.variant}" if raw.variant in ("old", "new") else ""
    return f"subset: first {listed}{release}"


def _images(config: DataConfig, raw: Raw, name: str, variant: str) -> Images:
    split = raw.splits[name]
    taken = slice(0, config.limit or None)
    pixels = split.pixels[taken]
    if len(pixels) == 0:
        raise DataError(f"{config.data} has no {name} images: name another --data-dir")
    labels = None if split.labels is None else split.labels[taken]
    _check(config, raw, name, pixels, labels)
    num_levels = _num_levels(config, raw.num_levels)
    channels, height, width = pixels.shape[1:]
    gray = config.gray and channels == 3
    shape = (1 if gray else channels, height + 2 * config.pad, width + 2 * config.pad)
    options = (num_levels, config.binarize, gray, config.pad, raw.variant)
    parts = [] if config.condition == "none" else config.condition.split("+")
    annotations = {part: _annotation(config, split, part, taken, raw) for part in parts}
    if "keypoints" in annotations:
        map_channels = annotations["keypoints"].shape[1]
    else:
        map_channels = raw.num_mask_classes if "mask" in annotations else 0
    return Images(
        name=config.data,
        split=name,
        variant=variant,
        is_subset=raw.variant.startswith("subset")
        or len(pixels) < (split.count or len(split.pixels)),
        num_levels=num_levels,
        image_shape=shape,
        fingerprint=_fingerprint(pixels, labels, options),
        binarize=config.binarize,
        condition=config.condition,
        labels=labels,
        num_classes=raw.num_classes,
        num_map_channels=map_channels,
        caption_length=raw.caption_length if "caption" in annotations else 0,
        _pixels=pixels,
        _annotations=tuple(annotations.values()),
        _native_levels=raw.num_levels,
        _gray=gray,
        _pad=config.pad,
    )


def _annotation(
    config: DataConfig, split: RawSplit, part: str, taken: slice, raw: Raw
) -> np.ndarray:
    """What `--condition` asks for, as an array with one row per image."""
    known = {
        "label": split.labels,
        "mask": split.mask,
        "keypoints": split.keypoints,
        "caption": split.captions,
    }
    values = known[part]
    if values is None:
        offered = ", ".join(key for key, one in known.items() if one is not None) or "nothing"
        raise DataError(f"--condition {part}: {config.data} as found comes with {offered}")
    if part != "caption":
        return np.asarray(values[taken])
    return tokenize(list(values[taken]), raw.caption_length)


def _check(
    config: DataConfig, raw: Raw, name: str, pixels: np.ndarray, labels: np.ndarray | None
) -> None:
    """Levels and labels must be in range; bytes can't be above 255, so those aren't read."""
    if raw.num_levels < 256 and (top := int(pixels.max())) >= raw.num_levels:
        raise DataError(
            f"{config.data_dir}: the {name} images have level {top}, but only {raw.num_levels} "
            "levels: say how many there are by --native-levels"
        )
    if labels is None:
        return
    if len(labels) != len(pixels):
        raise DataError(f"{config.data_dir}: {len(labels)} {name} labels for {len(pixels)} images")
    if labels.min() < 0 or labels.max() >= raw.num_classes:
        found = f"{labels.min()}..{labels.max()}"
        raise DataError(
            f"{config.data_dir}: the {name} labels are {found}, expected 0..{raw.num_classes - 1} "
            "as in train: correct them"
        )


def _num_levels(config: DataConfig, native: int) -> int:
    if config.binarize != "none":
        if config.levels not in (0, 2):
            raise DataError(f"--binarize gives 2 levels, not --levels {config.levels}: choose one")
        return 2
    if config.levels == 1 or config.levels > native:
        raise DataError(
            f"--levels {config.levels}: {config.data} has {native} levels, choose 2 to {native}"
        )
    return config.levels or native


def _fingerprint(pixels: np.ndarray, labels: np.ndarray | None, options: tuple) -> str:
    digest = hashlib.sha256(repr(options).encode())
    digest.update(packing.fingerprint(pixels).encode())
    digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()[:32]
