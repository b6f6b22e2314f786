"""FactorizedDecoder: p(x | h) as a product over sub-pixels, drawn by the raster scan."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from decoders.arguments import shown
from decoders.attached import Structure, attached, structure
from decoders.base import Decoder, ShowRows
from decoders.likelihoods import Likelihood
from decoders.scan import Draw, PlainScan, ReadyScan, Scan, blank, evaluating, run


class FactorizedDecoder(Decoder):
    """A decoder that predicts each sub-pixel from those before it, and from h.

    ::

        p(x | h) = product over i of p(x_i | x_1, ..., x_(i-1), h)

    A new one implements `params`; `log_prob` and `sample` come with it. It may also offer `scan`,
    its own cached pass over the image, and then sampling is fast. One whose pixels are independent
    given h sets `autoregressive = False`: it is sampled from one pass of `params`.

    Attributes:
        built: where there is a `scan`, the layers at the end of construction, so that one exchanged
            later is noticed; see `remember_layers`.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016),
    https://arxiv.org/abs/1601.06759.

    >>> from decoders import Categorical
    >>> class RowMean(FactorizedDecoder):  # of one row of gray pixels
    ...     def __init__(self, width):
    ...         super().__init__((1, 1, width), Categorical(2))
    ...         self.scale = torch.nn.Parameter(torch.ones(2))
    ...
    ...     def params(self, x, h=None):
    ...         before = torch.nn.functional.pad(x.float().cumsum(dim=3), (1, 0))[..., :-1]
    ...         return before * self.scale[:, None, None]
    >>> decoder = RowMean(4)
    >>> decoder.log_prob(torch.zeros(2, 1, 1, 4, dtype=torch.uint8)).exp()
    tensor([0.0625, 0.0625], grad_fn=<ExpBackward0>)
    >>> decoder.sample(num=3).shape
    torch.Size([3, 1, 1, 4])
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

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, likelihood={self.likelihood}"

    @abstractmethod
    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters of every pixel, (B, P, H, W).

        Those of a sub-pixel must depend on earlier sub-pixels of x alone, in the order (row,
        column, channel); `decoders.checks.check_causality` proves it. Where the decoder is not
        `autoregressive`, they must not depend on x at all.
        """

    def log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return log p(x | h) in nats, (B,) float32; see `Decoder.log_prob`."""
        return self.elementwise_log_prob(x, h).flatten(1).sum(dim=1)

    def elementwise_log_prob(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return log p of each sub-pixel given those before it, in nats, (B, C, H, W)."""
        self.check_image(x)
        self.check_cond(h, x.shape[0])
        return self.likelihood.log_prob(self.params(x, h), x)

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """Return a pass over `num` images in raster order; unless overridden, it calls `params`.

        It does so once where pixels are independent given h, else for each sub-pixel.
        """
        if self.autoregressive:
            return PlainScan(self, h, num)
        return ReadyScan(self.params(blank(self, num), h))

    def remember_layers(self) -> None:
        """Remember the layers that a cached scan reads; see `begin_scan`.

        A decoder with a `scan` of its own ends `__init__` with it.
        """
        self.built = structure(self)

    def begin_scan(self, h: Tensor | None, num: int) -> Scan:
        """Return the pass that samples and codes: `scan`, or the plain one with a warning.

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
