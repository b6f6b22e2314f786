"""Images: one split of a data set as the models see it, read in batches by index.

Levels, binarising, grey and padding are applied to every batch as it is read, without a loop over
its images, so that a memory-mapped set of a million images takes no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.data import noise
from pipelines.data.subset import Rows


class Batch(NamedTuple):
    """Images and what they are conditioned on."""

    x: Tensor  # (B, C, H, W) levels, uint8, or int64 where there are more than 256
    y: Tensor | tuple[Tensor, ...] | None
    """label (B,) int64; mask (B, H, W) uint8 class ids; keypoints (B, K, H, W) uint8; caption
    (B, T) uint8 characters; a pair of these for a joined condition; None for none."""


@dataclass(frozen=True, eq=False)
class Images:
    """One split of one data set. Its images are read by `batch`."""

    name: str
    split: str  # "train" | "valid" | "test"
    variant: str  # "" | "old" | "new" | "subset: …", with how it was drawn
    is_subset: bool  # whether the data set has more images in this split
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

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: np.ndarray, *, noise_seed: tuple[int, ...] = (0,)) -> Batch:
        """The images of these indices, in this order.

        Args:
            indices: integers (B,) in [0, len(self))
            noise_seed: decides the dynamic binarisation of training images; every image's draw
                depends on this and its own index, not on the rest of the batch

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


def to_display(x: Tensor, num_levels: int) -> Tensor:
    """Levels 0..num_levels-1 spread evenly over 0..255, uint8, for pictures.

    Example:
        >>> to_display(torch.tensor([0, 1, 3], dtype=torch.uint8), 4).tolist()
        [0, 85, 255]
    """
    top = num_levels - 1
    return ((x.long() * 255 + top // 2) // top).to(torch.uint8)


def _to_gray(x: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) -> (B, 1, H, W): ITU-R 601 luma, rounded as Pillow rounds it."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    luma = np.einsum("bchw,c->bhw", x.astype(np.uint32), weights)
    return ((luma + 0x8000) >> 16).astype(x.dtype)[:, None]


def _padded(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(pad, pad)] * 2)
