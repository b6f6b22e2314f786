"""Preparation of raw data: checks, `--limit` and options, before any training step.

    Raw ── one shape? levels and labels in range? ── --limit ── Images for each split

All splits are checked here, so that an unfit test split does not come up after training.
"""

from __future__ import annotations

import numpy as np

from encoders.text import tokenize
from pipelines.data import fingerprint, subset
from pipelines.data.config import DataConfig
from pipelines.data.images import Images
from pipelines.data.labels import MOST_CLASSES
from pipelines.data.raw import Raw, RawSplit
from pipelines.data.subset import Rows
from pipelines.runtime.errors import DataError
from pipelines.runtime.messages import warn

_BLOCK = 4096  # images whose levels are looked at together


def prepare(config: DataConfig, raw: Raw) -> dict[str, Images]:
    """Return the images of every split, with the options of `config` applied.

    Raises:
        DataError: the splits do not fit each other, the options or the condition
    """
    _check_shapes(config, raw)
    raw = _with_sound_labels(config, raw)
    taken = {}
    for name, split in raw.splits.items():
        chosen = subset.draw(len(split.pixels), config.limit, split.labels)
        taken[name] = _take(split, chosen)
    variant = _variant(raw, taken)
    return {name: _images(config, raw, name, split, variant) for name, split in taken.items()}


def _take(split: RawSplit, rows: np.ndarray) -> RawSplit:
    """Return some rows of a split, with all its annotations; `count` keeps their former number."""
    known = (split.labels, split.mask, split.keypoints)
    labels, mask, keypoints = (None if one is None else np.asarray(one)[rows] for one in known)
    captions = None if split.captions is None else [split.captions[row] for row in rows]
    count = split.count or len(split.pixels)
    return RawSplit(subset.take(split.pixels, rows), labels, mask, keypoints, captions, count)


def _variant(raw: Raw, taken: dict[str, RawSplit]) -> str:
    """Return the variant of the data set, with the numbers that `--limit` drew, and how."""
    if all(len(split.pixels) == split.count for split in taken.values()):
        return raw.variant
    counts = []
    for name, split in taken.items():
        left = len(split.pixels)
        counts.append(f"{left:,} {'' if left == split.count else f'of {split.count:,} '}{name}")
    how = f"drawn with seed {subset.SEED}"
    how += ", stratified by label" if taken["train"].labels is not None else ""
    release = f", of {raw.variant}" if raw.variant else ""
    return f"subset: {' / '.join(counts)}, {how}{release}"


def _images(config: DataConfig, raw: Raw, name: str, split: RawSplit, variant: str) -> Images:
    pixels = split.pixels
    _check_levels(config, raw, name, pixels)
    num_levels = _num_levels(config, raw.num_levels)
    channels, height, width = pixels.shape[1:]
    gray = config.gray and channels == 3
    shape = (1 if gray else channels, height + 2 * config.pad, width + 2 * config.pad)
    parts = [] if config.condition == "none" else config.condition.split("+")
    annotations = {part: _annotation(config, split, part, raw) for part in parts}
    if "keypoints" in annotations:
        map_channels = annotations["keypoints"].shape[1]
    else:
        map_channels = raw.num_mask_classes if "mask" in annotations else 0
    return Images(
        name=config.data,
        split=name,
        variant=variant,
        is_subset=raw.variant.startswith("subset") or len(pixels) < split.count,
        num_levels=num_levels,
        image_shape=shape,
        fingerprint=fingerprint.of_split(
            pixels,
            raw.num_levels,
            split.labels,
            num_levels=num_levels,
            binarize=config.binarize,
            gray=gray,
            pad=config.pad,
            variant=raw.variant,
        ),
        binarize=config.binarize,
        condition=config.condition,
        labels=split.labels,
        num_classes=raw.num_classes,
        num_map_channels=map_channels,
        caption_length=raw.caption_length if "caption" in annotations else 0,
        _pixels=pixels,
        _annotations=tuple(annotations.values()),
        _native_levels=raw.num_levels,
        _gray=gray,
        _pad=config.pad,
    )


def _annotation(config: DataConfig, split: RawSplit, part: str, raw: Raw) -> np.ndarray:
    """Return the annotation that `--condition` names, one row per image."""
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
        return np.asarray(values)
    return tokenize(list(values), raw.caption_length)


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


# ---- checks ------------------------------------------------------------------------------------


def _check_shapes(config: DataConfig, raw: Raw) -> None:
    """Check that every split has images, and all have one shape."""
    train = raw.splits["train"].pixels.shape[1:]
    for name, split in raw.splits.items():
        if len(split.pixels) == 0:
            raise DataError(f"{config.data} has no {name} images: name another --data-dir")
        if (found := split.pixels.shape[1:]) != train or len(found) != 3:
            shapes = ["×".join(map(str, shape)) for shape in (found, train)]
            raise DataError(
                f"{config.data_dir}: the {name} images have the shape {shapes[0]}, those of train "
                f"{shapes[1]}, expected C×H×W, the same for all: crop or resize them"
            )


def _check_levels(config: DataConfig, raw: Raw, name: str, pixels: np.ndarray | Rows) -> None:
    """Check the range of levels; bytes with 256 levels need no reading."""
    if pixels.dtype == np.uint8 and raw.num_levels >= 256:
        return
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start : start + _BLOCK]
        low, high = int(block.min()), int(block.max())
        if low < 0 or high >= raw.num_levels:
            raise DataError(
                f"{config.data_dir}: the {name} images have level {low if low < 0 else high}, but "
                f"only {raw.num_levels} levels, counted from 0: say how many there are with "
                "--native-levels"
            )


def _with_sound_labels(config: DataConfig, raw: Raw) -> Raw:
    """Return labels as int64 in 0..num_classes-1, in every split or in none.

    Others, such as -1 for unknown, are left out with a warning unless the model is conditioned on
    labels.

    Raises:
        DataError: they are out of range and `--condition` asks for them, or of another number
    """
    labels = {name: split.labels for name, split in raw.splits.items()}
    for name, split in raw.splits.items():
        if (y := labels[name]) is not None and y.shape != (count := len(split.pixels),):
            found = "x".join(map(str, y.shape))
            raise DataError(f"{config.data_dir}: {found} {name} labels for {count} images")
    train = labels["train"]
    num_classes = raw.num_classes
    if train is not None and train.size and not num_classes:
        num_classes = max(0, int(train.max()) + 1)
    for name, split in raw.splits.items():
        problem = _label_problem(labels[name], len(split.pixels), num_classes, train is not None)
        if problem:
            if "label" in config.condition.split("+"):
                raise DataError(f"{config.data_dir}: the {name} labels {problem}: correct them")
            warn(f"{config.data_dir}: the {name} labels {problem}: they are left out")
            labels[name] = None
    if labels["train"] is None:
        labels, num_classes = dict.fromkeys(labels), 0
    splits = {
        name: split._replace(labels=None if (y := labels[name]) is None else y.astype(np.int64))
        for name, split in raw.splits.items()
    }
    return raw._replace(splits=splits, num_classes=num_classes)


def _label_problem(labels: np.ndarray | None, images: int, num_classes: int, in_train: bool) -> str:
    """Describe the fault of a split's labels as the end of a sentence; empty without one."""
    if labels is None:
        return ""
    low, high = int(labels.min()), int(labels.max())
    if not in_train:
        return f"are {low}..{high}, and train has none"
    if low < 0 or high >= num_classes:
        return f"are {low}..{high}, expected 0..{max(num_classes, 1) - 1} as in train"
    if num_classes > max(MOST_CLASSES, images):
        distinct = len(np.unique(labels))
        return (
            f"go up to {high:,} and only {distinct:,} of them occur: number the classes "
            f"0..{distinct - 1}, as np.unique(labels, return_inverse=True) does"
        )
    return ""
