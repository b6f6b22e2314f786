"""The interface of every decoder, and what all autoregressive ones share."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

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
    shown,
)
from decoders.attached import Structure, attached
from decoders.likelihoods import Categorical, Likelihood
from decoders.scan import Draw, PlainScan, ReadyScan, Scan, blank, evaluating, run

ShowRows = Callable[[Iterable[int]], Iterable[int]]


class Decoder(nn.Module, ABC):
    """A normalised probability p(x | h) of an image x given a conditioning tensor h.

    Attributes:
        image_shape: (C, H, W) of x.
        num_levels: the number L of integer levels of x, or None where x is continuous.
        cond_shape: the shape of one h: () for none, (K,) for a vector, (K, H', W') for a map.
        check_values: whether levels are looked at for any outside 0..num_levels - 1. On a GPU that
            waits for it at each call; `Decoder.check_values = False` spares it, for images known
            to be right. (With 256 levels, and in a compiled model, there is nothing to spare.)
        autoregressive: whether pixels are predicted from those before them in raster order, so
            that there is a receptive field to measure and a drawing to watch. False where all are
            drawn at once.
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

    @property
    def dtype(self) -> torch.dtype:
        """The type of x: uint8 levels up to 256, int64 above, floats where x is continuous."""
        if self.num_levels is None:
            return next(self.parameters()).dtype
        return torch.uint8 if self.num_levels <= 256 else torch.int64

    @abstractmethod
    def log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """log p(x | h) in nats, summed over each image.

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
            num: how many images, B; unless given, those of h, the noise, or `known`, else 1.
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
        """`log_prob`, so that a decoder wrapped for distributed training trains."""
        return self.log_prob(x, h)

    def check_image(self, x: Tensor) -> None:
        """Raise a ValueError unless x is a batch of this decoder's images."""
        check_tensor(x, "images", "convert them by torch.as_tensor")
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
                    "quantise the images, or build the decoder with more num_levels"
                )

    def check_cond(self, h: Tensor | None, batch: int | None = None) -> None:
        """Raise a ValueError unless h is what `cond_shape` says, for that many images."""
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
        """Check the arguments of `sample`, and give the noise and the known part in full."""
        self.check_cond(h)
        if noise is not None:
            check_tensor(noise, "noise", "draw it by torch.rand")
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


class FactorizedDecoder(Decoder):
    """A decoder that predicts each sub-pixel from those before it, and from h.

    ::

        p(x | h) = product over i of p(x_i | x_1, ..., x_(i-1), h)

    A new one implements `params`; `log_prob` and `sample` come with it. It may also offer `scan`,
    its own cached pass over the image, and then sampling is fast. One whose pixels are independent
    given h sets `autoregressive = False`: it is sampled from one pass of `params`.

    Attributes:
        built: where there is a `scan`, the `decoders.attached.structure` of the decoder at the end
            of its construction, so that layers exchanged later are noticed; see `begin_scan`.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016),
    https://arxiv.org/abs/1601.06759.
    """

    autoregressive: ClassVar[bool] = True
    built: Structure | None = None

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        likelihood: Likelihood,
        cond_shape: tuple[int, ...] = (),
    ):
        super().__init__(image_shape, likelihood.num_levels, cond_shape)
        self.likelihood = likelihood

    @abstractmethod
    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The likelihood's parameters of every pixel, (B, P, H, W).

        Those of a sub-pixel must depend on earlier sub-pixels of x alone, in the order (row,
        column, channel); `decoders.checks.check_causality` proves it. Where the decoder is not
        `autoregressive`, they must not depend on x at all.
        """

    def log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """log p(x | h) in nats, (B,) float32; see `Decoder.log_prob`."""
        return self.elementwise_log_prob(x, h).flatten(1).sum(dim=1)

    def elementwise_log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """log p of each sub-pixel given those before it, and h, in nats, (B, C, H, W)."""
        self.check_image(x)
        self.check_cond(h, x.shape[0])
        return self.likelihood.log_prob(self.params(x, h), x)

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """One pass over `num` images in raster order that calls `params`, unless overridden.

        It calls them once where pixels are independent given h, else for each sub-pixel.
        """
        if self.autoregressive:
            return PlainScan(self, h, num)
        return ReadyScan(self.params(blank(self, num), h))

    def begin_scan(self, h: Tensor | None, num: int) -> Scan:
        """The pass that sampling and coding take: `scan`, or the plain one with a warning.

        A cached scan knows the layers that the decoder was built of. Where a hook, an adapter or
        another layer is attached, or `params` is overridden, only calling the network is right.
        """
        cached = type(self).scan is not FactorizedDecoder.scan
        passed_over = attached(self, self.built) if cached else None
        if passed_over is None:
            return self.scan(h, num)
        warnings.warn(
            f"the cached scan knows nothing of {passed_over}: the whole network runs for each "
            "sub-pixel, which is slow; to be fast, merge it into the weights or override scan",
            stacklevel=4,
        )
        return FactorizedDecoder.scan(self, h, num)

    @torch.no_grad()
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
        """Draw images sub-pixel by sub-pixel (ancestral sampling); see `Decoder.sample`."""
        noise, known = self.sampling_inputs(h, num, temperature, generator, noise, known)
        draw = Draw(self.likelihood, noise, temperature, known)
        # Inference mode saves time at each of many small steps; the clone is an ordinary tensor.
        with evaluating(self), torch.inference_mode():
            scan = self.begin_scan(h, len(noise))
            x = run(scan, draw, self.image_shape, len(noise), self.dtype, progress)
        return x.clone()


def factorized(decoder: Decoder, purpose: str) -> FactorizedDecoder:
    """Return a decoder of which each sub-pixel has a distribution, or raise a TypeError."""
    if not isinstance(decoder, FactorizedDecoder):
        raise TypeError(f"expected a FactorizedDecoder {purpose}, got {shown(decoder)}")
    return decoder


def resolve_likelihood(likelihood: Likelihood | None, num_levels: int | None) -> Likelihood:
    """The given likelihood, or a `Categorical` over `num_levels` (256 unless given)."""
    if likelihood is None:
        return Categorical(256 if num_levels is None else num_levels)
    if not isinstance(likelihood, Likelihood):
        raise TypeError(
            f"expected a Likelihood, such as decoders.Categorical(256), got {shown(likelihood)}"
        )
    if num_levels is not None and num_levels != likelihood.num_levels:
        raise ValueError(
            f"expected num_levels={likelihood.num_levels}, as in {likelihood}, or no num_levels, "
            f"got {num_levels}"
        )
    return likelihood


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
