"""DeconvDecoder: every sub-pixel independent of the others given h, as in a plain VAE."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.factorized import FactorizedDecoder
from decoders.likelihoods import Likelihood, resolve_likelihood


class DeconvDecoder(FactorizedDecoder):
    """Deconvolutions with independent pixels: the baseline that autoregressive decoders replace.

    ::

        h ── linear ── (ReLU ── 2× transposed convolution) × n ── crop ── parameters

    p(x | h) is the product over pixels, so that all structure of x must come through h. It is
    normalized like any other decoder, and its bits/dim compare.

    Args:
        image_shape: (C, H, W).
        num_levels: Integer levels of x. Unless given, those of the likelihood, or 256.
        cond_shape: Shape of one h, (K,) or (K, H', W'); () learns a distribution for each pixel.
        hidden_channels: Features of the last layer; earlier ones have twice as many.
        likelihood: Distribution of a pixel, a `Categorical` unless given.

    Source: Kingma, Welling: Auto-Encoding Variational Bayes (2013),
    https://arxiv.org/abs/1312.6114; Masci, Meier, Cireșan, Schmidhuber: Stacked Convolutional
    Auto-Encoders for Hierarchical Feature Extraction (2011).

    >>> decoder = DeconvDecoder((1, 28, 28), num_levels=2, cond_shape=(16,))
    >>> decoder.sample(torch.randn(3, 16)).shape
    torch.Size([3, 1, 28, 28])
    """

    autoregressive = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int | None = None,
        cond_shape: tuple[int, ...] = (),
        hidden_channels: int = 64,
        likelihood: Likelihood | None = None,
    ):
        super().__init__(image_shape, resolve_likelihood(likelihood, num_levels), cond_shape)
        hidden_channels = check_count(hidden_channels, "hidden_channels")
        channels, height, width = self.image_shape
        params = self.likelihood.num_params(channels)
        if not self.cond_shape:
            self.constant = nn.Parameter(torch.zeros(params, height, width))
            return
        steps = 2 if min(height, width) >= 8 else 1
        small = (-(-height // 2**steps), -(-width // 2**steps))
        widths = [2 * hidden_channels] * steps + [hidden_channels]
        parts: list[nn.Module] = [_Start(self.cond_shape, widths[0], small)]
        for a, b in pairwise(widths):
            parts += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
        parts += [nn.ReLU(), nn.Conv2d(widths[-1], params, 3, padding=1)]
        self.network = nn.Sequential(*parts)
        for part in self.network:
            if isinstance(part, nn.ConvTranspose2d):
                # PyTorch's initial weights would let little of h through. He et al.: Delving Deep
                # into Rectifiers (2015), https://arxiv.org/abs/1502.01852; of the kernel, a
                # quarter meets each output.
                nn.init.normal_(part.weight, std=(2 / (part.in_channels * 4)) ** 0.5)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, P, H, W), the same for any x."""
        if h is None:
            return self.constant.expand(len(x), *self.constant.shape)
        _, height, width = self.image_shape
        return self.network(h)[:, :, :height, :width]


class _Start(nn.Module):
    """First layer, h to a small map: a vector by a linear layer, a map by a 1×1 and a resize."""

    def __init__(self, cond_shape: tuple[int, ...], channels: int, size: tuple[int, int]):
        super().__init__()
        self.size = size
        self.vector = len(cond_shape) == 1
        inputs = cond_shape[0]
        self.project = (
            nn.Linear(inputs, channels * size[0] * size[1])
            if self.vector
            else nn.Conv2d(inputs, channels, 1)
        )

    def forward(self, h: Tensor) -> Tensor:
        if self.vector:
            return self.project(h).unflatten(1, (-1, *self.size))
        return nn.functional.interpolate(self.project(h), size=self.size, mode="nearest-exact")
