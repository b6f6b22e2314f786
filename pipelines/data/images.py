"""Images: one split of a data set as models see it, read in batches by index.

Levels, binarization, gray and padding are applied to each batch as it is read, without a loop over
its images, so that a memory-mapped set of a million images takes no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.data import fingerprint, noise
from pipelines.data.image_set import Batch
from pipelines.data.in_memory import Held, hold_arrays, hold_dataset
from pipelines.data.raw import RawSplit
from pipelines.data.subset import Rows
from pipelines.runtime.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """One split of a data set; `batch` reads its images."""

    name: str
    split: str  # "train" | "valid" | "test"
    variant: str  # "" | "old" | "new" | "subset: …", with how it was drawn
    is_subset: bool  # the data set has more images in this split
    num_levels: int  # of the images that `batch` gives
    image_shape: tuple[int, int, int]  # of the images that `batch` gives: C, H, W
    fingerprint: str  # hex; equal if and only if images, labels and options are
    binarize: str  # "none" | "threshold" | "dynamic"
    condition: str
    labels: np.ndarray | None  # (N,) int64, whatever the condition
    num_classes: int  # 0 without labels
    num_map_channels: int  # classes of the mask, or keypoints, that `batch` gives; else 0
    caption_length: int  # characters of the captions that `batch` gives; else 0
    _pixels: np.ndarray | Rows
    _annotations: tuple[np.ndarray, ...]  # in the order of the condition
    _native_levels: int
    _gray: bool
    _pad: int

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        name: str = "own",
        split: str = "train",
        condition: str = "none",
    ) -> Images:
        """Make a split of arrays in memory (or memory-mapped).

        Args:
            images: NumPy array or tensor (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 or 3
                channels: integer levels, or floats in [0, 1], of which x has the level
                round(x · (num_levels - 1)).
            labels: (N,) integers from 0, or None.
            num_levels: levels of the images (None: 256 for bytes, otherwise one more than the
                highest level; floats need it).
            num_classes: classes of the labels (None: one more than the highest label).
            name: name of the data set, in results and messages.
            split: "train", "valid" or "test".
            condition: "label" if batches come with the labels, else "none".

        Raises:
            DataError: the arrays are empty or something else; levels, floats or labels are out of
                range.

        Example:
            >>> images = Images.from_arrays(np.zeros((10, 8, 8), np.uint8), num_levels=2)
            >>> len(images), images.image_shape, images.num_levels
            (10, (1, 8, 8), 2)
        """
        held = hold_arrays(name, images, labels, num_levels)
        return cls._of_held(held, num_classes, name, split, condition)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        name: str = "own",
        split: str = "train",
        condition: str = "none",
    ) -> Images:
        """Make a split of a map-style torch `Dataset`, which is read once into memory.

        Args:
            dataset: yields x or (x, y): x a tensor, array or PIL image (H, W), (C, H, W) or
                (H, W, C), of integer levels or floats in [0, 1]; y an integer label.
            num_levels: as for `from_arrays`.
            num_classes: as for `from_arrays`.
            name: name of the data set, in results and messages.
            split: "train", "valid" or "test".
            condition: "label" if batches come with the labels, else "none".

        Raises:
            DataError: the dataset is empty, yields something else or images of several shapes, or
                needs more memory than is free.
        """
        held = hold_dataset(name, dataset, num_levels)
        return cls._of_held(held, num_classes, name, split, condition)

    @classmethod
    def of(cls, source: Any, *, name: str = "own", num_levels: int | None = None) -> Images:
        """Return images as they are; make them of arrays, a pair (images, labels), or a `Dataset`.

        Raises:
            DataError: as for `from_arrays` and `from_dataset`
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, (np.ndarray, Tensor)):
            return cls.from_arrays(source, name=name, num_levels=num_levels)
        if isinstance(source, tuple) and len(source) == 2:
            return cls.from_arrays(*source, name=name, num_levels=num_levels)
        return cls.from_dataset(source, name=name, num_levels=num_levels)

    @classmethod
    def _of_held(
        cls, held: Held, num_classes: int | None, name: str, split: str, condition: str
    ) -> Images:
        pixels, labels, num_levels = held
        if split not in ("train", "valid", "test"):
            raise DataError(f"{name}: expected the split train, valid or test, got {split!r}")
        if condition not in ("none", "label") or (condition == "label" and labels is None):
            have = "none" if labels is None else "none or label"
            raise DataError(f"{name}: expected the condition {have}, got {condition!r}")
        classes = 0 if labels is None else int(labels.max()) + 1
        if num_classes is not None and num_classes < classes:
            raise DataError(f"{name}: expected labels below {num_classes}, got {classes - 1}")
        _, channels, height, width = pixels.shape
        return cls(
            name=name,
            split=split,
            variant="",
            is_subset=False,
            num_levels=num_levels,
            image_shape=(channels, height, width),
            fingerprint=fingerprint.of_split(pixels, num_levels, labels, num_levels=num_levels),
            binarize="none",
            condition=condition,
            labels=labels,
            num_classes=0 if labels is None else num_classes or classes,
            num_map_channels=0,
            caption_length=0,
            _pixels=pixels,
            _annotations=(labels,) if condition == "label" and labels is not None else (),
            _native_levels=num_levels,
            _gray=False,
            _pad=0,
        )

    @property
    def has_options(self) -> bool:
        """True if `batch` applies options: levels, binarize, gray or pad."""
        other_levels = self.num_levels != self._native_levels
        return self.binarize != "none" or self._gray or bool(self._pad) or other_levels

    def raw_split(self) -> RawSplit:
        """Return the images and labels, as options are applied to them.

        Raises:
            DataError: options were applied to them already
        """
        if self.has_options:
            raise DataError(
                f"the {self.split} images of {self.name} have options applied (levels, binarize, "
                "gray or pad): load them without, and give the flags to the command"
            )
        return RawSplit(self._pixels, self.labels)

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: np.ndarray, *, noise_seed: tuple[int, ...] = (0,)) -> Batch:
        """Return the images at these indices, in this order.

        Args:
            indices: integers (B,) in [0, len(self))
            noise_seed: seed of the dynamic binarization of training images. The draw of an image
                depends on the seed and its own index, not on the rest of the batch

        Example:
            >>> from pipelines.data.sets import DataConfig, load
            >>> batch = load(DataConfig(condition="label")).train.batch(np.array([3, 0]))
            >>> tuple(batch.x.shape), batch.x.dtype, batch.y.tolist()
            ((2, 1, 8, 8), torch.uint8, [3, 0])
        """
        indices = np.asarray(indices)
        x = np.asarray(self._pixels[indices])
        if self._gray:
            x = _to_gray(x)
        if self._pad:
            x = _padded(x, self._pad)
        if self.binarize == "threshold":
            x = x > (self._native_levels - 1) // 2
        elif self.binarize == "dynamic":
            seed = (1, *noise_seed) if self.split == "train" else (0,)
            size = x[0].size if len(x) else 1
            counters = indices.reshape(-1, 1) * size + np.arange(size)
            draws = noise.uniform(seed, counters).reshape(x.shape)
            x = draws * (self._native_levels - 1) < x
        elif self.num_levels != self._native_levels:
            wide = np.uint16 if self._native_levels <= 256 else np.uint32
            x = x.astype(wide) * self.num_levels // self._native_levels
        y = tuple(self._annotation(values[indices]) for values in self._annotations)
        dtype = np.uint8 if self.num_levels <= 256 else np.int64
        pixels = torch.from_numpy(np.ascontiguousarray(x, dtype=dtype))
        return Batch(pixels, None if not y else y[0] if len(y) == 1 else y)

    def _annotation(self, values: np.ndarray) -> Tensor:
        if self._pad and values.ndim > 2:
            values = _padded(values, self._pad)
        return torch.from_numpy(np.ascontiguousarray(values))


class Splits(NamedTuple):
    """The splits of one data set; results are scored on `test`."""

    train: Images
    test: Images
    valid: Images | None = None

    @classmethod
    def named(cls, source: Any) -> Any:
        """Return splits as a dict by name, and anything else as it is.

        `test` is a validation set where there is no other.
        """
        if not isinstance(source, cls):
            return source
        train, test, valid = source
        scored = "valid" if valid is None and test.split == "valid" else "test"
        return {"train": train, scored: test, **({} if valid is None else {"valid": valid})}


def to_display(x: Tensor, num_levels: int) -> Tensor:
    """Spread levels 0..num_levels-1 evenly over 0..255, uint8, for pictures.

    Example:
        >>> to_display(torch.tensor([0, 1, 3], dtype=torch.uint8), 4).tolist()
        [0, 85, 255]
    """
    top = num_levels - 1
    return ((x.long() * 255 + top // 2) // top).to(torch.uint8)


def _to_gray(x: np.ndarray) -> np.ndarray:
    """Convert (B, 3, H, W) to (B, 1, H, W): ITU-R 601 luma, rounded as Pillow does."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    luma = np.einsum("bchw,c->bhw", x.astype(np.uint32), weights)
    return ((luma + 0x8000) >> 16).astype(x.dtype)[:, None]


def _padded(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(pad, pad)] * 2)
