"""Images for `pipelines.train`: a user's data sets as splits, kept in the run directory.

x or (x, y) ── levels of the model ── train, valid ── prepared like any data set ── data.npz
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.config import DataConfig
from pipelines.data.prepare import prepare
from pipelines.data.raw import Raw, RawSplit
from pipelines.data.sets import Images, Splits
from pipelines.data.subset import draw, take
from pipelines.model import Model
from pipelines.runs.own import IMAGES
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.messages import say

MOST_BYTES = 256 * 2**20  # of images that are kept
HELD_OUT = 10  # one image in 10 is for validation if there is no validation set


def own_splits(
    model: Model, train_set: Any, valid_set: Any, name: str
) -> tuple[Splits, DataConfig]:
    """Return the splits to train and to score on, and the configuration that reads them again.

    Args:
        model: the model, whose number of levels floats are quantized to.
        train_set: `Images`, a torch data set of x or (x, y), an array, or a pair of arrays.
        valid_set: as train_set, or None to hold out a tenth of the training set.
        name: name of the data set in results and messages.

    Raises:
        UserError: the images do not fit the model.
    """
    levels = model.decoder.num_levels
    train = Images.of(train_set, name=name, num_levels=levels)
    valid = None if valid_set is None else Images.of(valid_set, name=name, num_levels=levels)
    for images in (train, valid):
        if images is not None:
            _check(model, images)
    train, valid = _applied(train), None if valid is None else _applied(valid)
    raw = _raw(train, valid, levels or train.num_levels)
    condition = "label" if model.encoder is not None and not model.encoder.reads_image else "none"
    config = DataConfig(data="npz", data_dir="", condition=condition, native_levels=raw.num_levels)
    images = prepare(config, raw)
    return Splits(*(_named(images[split], train.name) for split in ("train", "valid"))), config


def own_images(model: Model, dataset: Any, name: str) -> Images:
    """Return images with the annotation that the model is given.

    Raises:
        UserError: the images do not fit the model.
    """
    images = Images.of(dataset, name=name, num_levels=model.decoder.num_levels)
    if images.condition != "none":
        return images
    _check(model, images)
    if model.encoder is None or model.encoder.reads_image or images.labels is None:
        return images
    return dataclasses.replace(images, condition="label", _annotations=(images.labels,))


def _named(images: Images, name: str) -> Images:
    return dataclasses.replace(images, name=name)


def _check(model: Model, images: Images) -> None:
    """Raise a UserError if the images do not fit the model."""
    decoder, encoder = model.decoder, model.encoder
    if (images.image_shape, images.num_levels) != (decoder.image_shape, decoder.num_levels):
        raise UserError(
            f"expected images {list(decoder.image_shape)} of {decoder.num_levels} levels, as the "
            f"{type(decoder).__name__} has them, got {images.name}: {list(images.image_shape)} of "
            f"{images.num_levels} levels"
        )
    if encoder is None or encoder.reads_image:
        return
    if not encoder.num_classes:
        raise UserError(
            f"a model given a {encoder.given} can't be trained on data sets of one's own: they "
            "have images and labels; write a Pipeline, or train it in a loop of your own"
        )
    if images.labels is None:
        raise UserError(f"the model is given a label, and {images.name} has none: yield (x, y)")
    if images.num_classes > encoder.num_classes:
        raise UserError(
            f"expected labels below {encoder.num_classes}, as the {type(encoder).__name__} has "
            f"them, got {images.num_classes - 1} in {images.name}"
        )


def _applied(images: Images) -> Images:
    """Return images with their options applied, in memory.

    Raises:
        UserError: they are drawn again for each batch.
    """
    if not images.has_options:
        return images
    if images.binarize == "dynamic":
        raise UserError(
            f"{images.name} is binarized again for each batch, which can't be kept in a run: give "
            "binarize='threshold', or train with pixel-decoders pixelcnn --binarize dynamic"
        )
    starts = range(0, len(images), 1000)
    indices = [np.arange(start, min(start + 1000, len(images))) for start in starts]
    pixels = np.concatenate([images.batch(part).x.numpy() for part in indices])
    plain = Images.from_arrays(
        pixels,
        images.labels,
        num_levels=images.num_levels,
        num_classes=images.num_classes or None,
        name=images.name,
        split=images.split,
    )
    return dataclasses.replace(plain, variant=images.variant)


def _raw(train: Images, valid: Images | None, num_levels: int) -> Raw:
    """Return both splits as they are in their source. Without the second, hold out a tenth."""
    raw = train.raw_split()
    if valid is not None:
        held_out = valid.raw_split()
    else:
        count = len(train)
        if count < 2:
            raise UserError(f"{train.name} has one image: give a valid_set to score on")
        rows = draw(count, math.ceil(count / HELD_OUT), raw.labels)
        others = np.setdiff1d(np.arange(count), rows)
        held_out, raw = _rows(raw, rows), _rows(raw, others)
        say(f"no valid_set: {len(rows):,} of {count:,} images are held out, to score on")
    return Raw({"train": raw, "valid": held_out}, num_levels=num_levels, variant=train.variant)


def _rows(split: RawSplit, rows: np.ndarray) -> RawSplit:
    labels = None if split.labels is None else split.labels[rows]
    return RawSplit(take(split.pixels, rows), labels)


def keep(run_dir: Path, splits: Splits) -> None:
    """Save the images in the run directory for the commands that need them, up to 256 MiB.

    Larger sets are given to those commands with --data-dir.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, images in (("train", splits.train), ("valid", splits.test)):
        raw = images.raw_split()
        if len(images) * math.prod(raw.pixels.shape[1:]) * raw.pixels.dtype.itemsize > MOST_BYTES:
            say(
                f"the {name} images are too large to keep in {run_dir}: commands that need them, "
                "such as evaluate, take --data-dir FILE.npz with arrays train and valid"
            )
            return
        arrays[name] = raw.pixels[np.arange(len(images))]
        if raw.labels is not None:
            arrays[f"{name}_labels"] = raw.labels
    with whole_file(run_dir / IMAGES, replace=True) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
