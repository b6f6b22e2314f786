"""ImageSet: the protocol of a set of images, as training and scoring need it, and its batches."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor


class Batch(NamedTuple):
    """Images and what they are conditioned on."""

    x: Tensor  # (B, C, H, W) levels, uint8, or int64 where there are more than 256
    y: Tensor | tuple[Tensor, ...] | None
    """label (B,) int64; mask (B, H, W) uint8 class ids; keypoints (B, K, H, W) uint8; caption
    (B, T) uint8 characters; a pair of these for a joined condition; None for none."""


class ImageSet(Protocol):
    """Images that a model is trained or scored on; `pipelines.data.images.Images` is one."""

    @property
    def fingerprint(self) -> str:
        """Hash that is equal if and only if images, annotations and options are."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, *, noise_seed: tuple[int, ...] = (0,)) -> Batch:
        """Return the images at some positions, and their annotations; a pure function."""
        ...
