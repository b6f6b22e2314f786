"""Decoder: the interface of every decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor

from decoders.arguments import (
    check_count,
    check_finite,
    check_known,
    check_known_shape,
    check_noise,
    check_shape,
    check_temperature,
    check_tensor,
    readable,
)
from decoders.levels import level_dtype
from decoders.pretrained import Pretrained

ShowRows = Callable[[Iterable[int]], Iterable[int]]


class Decoder(Pretrained, ABC):
    """A normalized probability p(x | h) of an image x given a conditioning tensor h.

    Attributes:
        image_shape: (C, H, W) of x.
        num_levels: the number L of integer levels of x, or None where x is continuous.
        cond_shape: the shape of one h: () for none, (K,) for a vector, (K, H', W') for a map.
        check_values: whether levels outside 0..num_levels - 1 are looked for. A GPU waits for that
            at each call, which `Decoder.check_values = False` avoids for images known to be right.
            (With 256 levels, and in a compiled model, nothing is looked for.)
        autoregressive: whether pixels are predicted from those before them in raster order, so that
            there is a receptive field to measure. False where all are drawn at once.
    """

    check_values: ClassVar[bool] = True
    autoregressive: ClassVar[bool] = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_levels: int | None,
        cond_shape: tuple[int, ...] = (),
    ):
        super().__init__()
        channels, height, width = check_shape(image_shape, "image_shape (C, H, W)", (3,))
        self.image_shape = (channels, height, width)
        self.num_levels = None if num_levels is None else check_count(num_levels, "num_levels", 2)
        self.cond_shape = check_shape(cond_shape, "cond_shape (), (K,) or (K, H', W')", (0, 1, 3))

    def extra_repr(self) -> str:
        """Return the line that a decoder's `repr` shows before its layers."""
        return (
            f"image_shape={self.image_shape}, num_levels={self.num_levels}, "
            f"cond_shape={self.cond_shape}"
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of x: uint8 levels up to 256, int64 above, floats where x is continuous."""
        if self.num_levels is None:
            return next(self.parameters()).dtype
        return level_dtype(self.num_levels)

    @abstractmethod
    def log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return log p(x | h) in nats, summed over each image.

        Args:
            x: (B, C, H, W) integer levels, uint8.
            h: (B, *cond_shape), or None where `cond_shape` is ().

        Returns:
            (B,) float32.

        Raises:
            ValueError: a wrong shape, type or level, or h missing or not expected.
        """

    @abstractmethod
    def sample(
        self,
        h: Tensor | None = None,
        *,
        num: int | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        progress: ShowRows | None = None,
    ) -> Tensor:
        """Draw images from p(x | h).

        Args:
            h: (B, *cond_shape), or None where `cond_shape` is ().
            num: number of images, B. Unless given, that of h, the noise or `known`, else 1.
            temperature: sharpens below 1, flattens above 1; 0 takes each mode.
            generator: makes the noise; the same seed gives the same images.
            noise: (B, C, H, W) uniforms in [0, 1) that decide every draw, in place of a generator.
                The same noise for several h shows what h alone changes (common random numbers).
            known: images (B, C, H, W) and a mask (B, C, H, W) or (C, H, W), True where a sub-pixel
                is kept: completion and inpainting. A kept sub-pixel influences those after it.
            progress: wraps the loop over rows, such as `tqdm.tqdm`.

        Returns:
            (B, C, H, W) levels.
        """

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return `log_prob`, so that a decoder wrapped for distributed training trains."""
        return self.log_prob(x, h)

    def check_image(self, x: Tensor) -> None:
        """Raise a ValueError unless x is a batch of this decoder's images."""
        check_tensor(x, "images", "convert them with torch.as_tensor")
        if x.dim() != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, self.image_shape))}), "
                f"got {tuple(x.shape)}"
            )
        if self.num_levels is None:
            if not x.is_floating_point():
                raise ValueError(f"expected floating-point values, got {x.dtype}")
            return
        if x.dtype != self.dtype:
            cure = "; turn floats in [0, 1] into levels with decoders.to_levels"
            raise ValueError(
                f"expected {self.dtype} levels 0..{self.num_levels - 1}, got {x.dtype}"
                f"{cure if x.is_floating_point() else ''}"
            )
        # uint8 holds no level above 255.
        if self.num_levels != 256 and self.check_values and readable(x) and x.numel():
            low, high = int(x.min()), int(x.max())
            if low < 0 or high >= self.num_levels:
                raise ValueError(
                    f"expected levels 0..{self.num_levels - 1}, got {low}..{high}: "
                    "quantize the images, or build the decoder with more num_levels"
                )

    def check_cond(self, h: Tensor | None, batch: int | None = None) -> None:
        """Raise a ValueError unless h has the shape `cond_shape`, for `batch` images."""
        if h is None:
            if self.cond_shape:
                raise ValueError(f"expected h of shape (B, {_join(self.cond_shape)}), got none")
            return
        check_tensor(h, "h", "the number of images to draw is num, as in sample(num=3)")
        if not self.cond_shape:
            raise ValueError(
                f"got h of shape {tuple(h.shape)} for a decoder built without conditioning: "
                f"build it with cond_shape={tuple(h.shape[1:])}"
            )
        if tuple(h.shape[1:]) != self.cond_shape or (batch is not None and h.shape[0] != batch):
            want = "B" if batch is None else batch
            raise ValueError(
                f"expected h of shape ({want}, {_join(self.cond_shape)}), got {tuple(h.shape)}"
            )
        if not h.is_floating_point():
            raise ValueError(f"expected floating-point h, got {h.dtype}: embed it first")
        weights = next(self.parameters(), h)
        if h.dtype != weights.dtype and not torch.is_autocast_enabled(h.device.type):
            raise ValueError(f"expected h of type {weights.dtype}, got {h.dtype}: convert it first")

    def sampling_inputs(
        self,
        h: Tensor | None,
        num: int | None,
        temperature: float,
        generator: torch.Generator | None,
        noise: Tensor | None,
        known: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Check the arguments of `sample`, and return the noise and the known part in full."""
        self.check_cond(h)
        if noise is not None:
            check_tensor(noise, "noise", "draw it with torch.rand")
        if known is not None:
            check_known(known)
        if num is None:
            given = [part for part in (h, noise, known and known[0]) if part is not None]
            num = given[0].shape[0] if given else 1
        elif h is not None and len(h) != num:
            raise ValueError(f"expected num={len(h)}, the number of h, or no num, got {num}")
        check_count(num, "num, the images to draw,")
        check_finite(h)
        check_temperature(temperature)
        shape = (num, *self.image_shape)
        device = next(self.parameters()).device
        if noise is None:
            source = generator.device if generator is not None else device
            noise = torch.rand(shape, generator=generator, device=source)
        else:
            check_noise(noise, shape)
        if known is not None:
            image, mask = known
            self.check_image(image)
            check_known_shape(image, mask, shape)
            known = image.to(device), mask.to(device).expand(shape)
        return noise.to(device), known


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
