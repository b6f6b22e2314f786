"""Two levels of latents: a vector for the whole image, and a map over its positions."""

from __future__ import annotations

from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from encoders.arguments import check_count, check_shape
from encoders.base import Code, Encoder, Noise, device_of, dtype_of
from encoders.gaussian import check_latents
from encoders.layers import Features, LevelInput, output_shape, pyramid, stage_channels
from encoders.posterior import (
    GaussianPosterior,
    Scale,
    check_scale,
    standard_normal,
    standard_normal_log_prob,
)


class LatentPrior(Protocol):
    """Interface of p(z1 | z2): a module, for instance a decoder of float maps."""

    def elementwise_log_prob(self, z1: Tensor, h: Tensor, /) -> Tensor:
        """Return log p(z1 | h) in nats per dimension, (B, K1, H', W'); only the sum matters."""
        ...

    def sample(self, h: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw z1 (B, K1, H', W') given h."""
        ...


class HierarchicalEncoder(Encoder):
    """Latents in two levels, a vector z2 (B, K2) and a map z1 (B, K1, H', W'); a bound.

    x -> levels -> features -> q(z1|x)                p(z2) = N(0, I)
                      |                               p(z1|z2) = prior, given prior_upsample(z2)
                   features -> q(z2|x)                h = upsample(z1)

    Both posteriors are diagonal Gaussians. The top level's KL divergence is in closed form; the
    bottom level's is log q(z1|x) - log p(z1|z2) at the drawn latents, an unbiased estimate.

    Args:
        image_shape: (C, H, W).
        map_shape: (K1, H', W') of z1; H'xW' is HxW halved any number of times, rounding up.
        latent_dim: K2, the dimensions of z2.
        prior: p(z1 | z2), an nn.Module with the methods of `LatentPrior`.
        num_levels: the number of levels of x.
        hidden_channels: channels at full size; each halving doubles them, up to four times.
        num_blocks: residual blocks at each size.
        embedding_dim: width of a learned embedding of the levels (0: scale them to [-1, 1]).
        scale: "softsign" for a posterior std below 1, or "exp"; see `GaussianEncoder`.
        prior_upsample: turns z2 into the prior's h (see `Upsample`); None passes z2 itself.
        upsample: turns z1 into the pixel decoder's h (see `Upsample`); None passes z1 itself.

    Raises:
        TypeError: the prior isn't an nn.Module.
        ValueError: a map_shape that halving can't reach; x of another shape, dtype or level; the
            shape of the prior's log-probabilities isn't that of z1.

    Source: I. Gulrajani et al., "PixelVAE: A Latent Variable Model for Natural Images", 2016,
    https://arxiv.org/abs/1611.05013. Its model for 64x64 has map_shape (64, 16, 16), latent_dim
    512, embedding_dim 16. There is no batch normalization, as a bound must not depend on the batch.

    >>> from decoders import DiagonalGaussian, GatedPixelCNN
    >>> prior = GatedPixelCNN(
    ...     (2, 4, 4), cond_shape=(3,), likelihood=DiagonalGaussian(), num_layers=1
    ... )
    >>> encoder = HierarchicalEncoder(
    ...     (1, 8, 8), map_shape=(2, 4, 4), latent_dim=3, prior=prior, hidden_channels=8
    ... )
    >>> code = encoder(torch.zeros(5, 1, 8, 8, dtype=torch.uint8))
    >>> code.h.shape, [tuple(kl.shape) for kl in code.kl]
    (torch.Size([5, 2, 4, 4]), [(5, 3), (5, 32)])
    """

    has_latents = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        map_shape: tuple[int, int, int],
        latent_dim: int,
        prior: LatentPrior,
        num_levels: int = 256,
        hidden_channels: int = 32,
        num_blocks: int = 1,
        embedding_dim: int = 0,
        scale: Scale = "softsign",
        prior_upsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ):
        super().__init__()
        check_scale(scale)
        if not isinstance(prior, nn.Module):
            raise TypeError(f"expected a prior that is an nn.Module, got a {type(prior).__name__}")
        self.map_shape = check_shape(map_shape, "map_shape (K1, H', W')")
        self.latent_dim = check_count(latent_dim, "latent_dim")
        check_count(hidden_channels, "hidden_channels")
        self.latent_shapes = ((latent_dim,), self.map_shape)
        self.scale: Scale = scale
        self.input = LevelInput(image_shape, num_levels, embedding_dim)
        size, map_size = (image_shape[1], image_shape[2]), (map_shape[1], map_shape[2])
        self.bottom = Features(
            (self.input.out_channels, *size),
            stage_channels(hidden_channels, len(pyramid(size, until=map_size))),
            num_blocks=num_blocks,
        )
        self.top = Features(
            self.bottom.out_shape,
            (4 * hidden_channels,) * len(pyramid(map_size)),
            num_blocks=num_blocks,
        )
        self.bottom_head = nn.Conv2d(self.bottom.out_shape[0], 2 * map_shape[0], 1)
        self.top_head = nn.Linear(prod(self.top.out_shape), 2 * latent_dim)
        self.prior: LatentPrior = prior
        self.prior_upsample = prior_upsample
        self.upsample = upsample
        self.code_shape = (
            self.map_shape if upsample is None else output_shape(upsample, self.map_shape)
        )

    def forward(self, x: Tensor | None, y: object = None, *, noise: Noise | None = None) -> Code:
        """Encode levels (B, C, H, W), drawing both latents; y is ignored."""
        return self._draw(*self._posteriors(x), noise)

    def draws(self, x: Tensor, y: object = None, *, num: int, noise: Noise | None = None) -> Code:
        """Return codes of `num` draws per image, from one pass of the posteriors' networks."""
        top, bottom = self._posteriors(x)
        return self._draw(top.repeat(num), bottom.repeat(num), noise)

    def _draw(self, top: GaussianPosterior, bottom: GaussianPosterior, noise: Noise | None) -> Code:
        """Draw z2 and z1 from their posteriors."""
        noise2, noise1 = noise or (None, None)
        z2, log_q2 = top.draw(noise2)  # (B, K2)
        z1, log_q1 = bottom.draw(noise1)  # (B, K1, H', W')
        log_p2 = standard_normal_log_prob(z2)
        log_p1 = self.prior.elementwise_log_prob(z1, self._prior_h(z2)).float()
        if log_p1.shape != z1.shape:
            raise ValueError(
                "expected the prior's elementwise_log_prob to have z1's shape "
                f"{tuple(z1.shape)}, got {tuple(log_p1.shape)}"
            )
        kl2 = top.kl()
        kl1 = (log_q1 - log_p1).flatten(1)  # (B, K1 * H' * W')
        return Code(
            h=self.to_h((z2, z1)),
            rate=(kl2.sum(1) + kl1.sum(1)).float(),
            log_weight=((log_p2 - log_q2).sum(1) - kl1.sum(1)).float(),
            kl=(kl2, kl1),
            z=(z2, z1),
        )

    def posterior(self, x: Tensor, y: object = None) -> tuple[GaussianPosterior, GaussianPosterior]:
        """Return q(z2|x), of vectors (B, K2), and q(z1|x), of maps (B, K1, H', W')."""
        return self._posteriors(x)

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return h of (z2, z1): z1 itself or its upsampled map; z2 acts only through z1."""
        _, z1 = check_latents(z, self.latent_shapes)
        z1 = z1.to(dtype_of(self.bottom_head))
        return z1 if self.upsample is None else self.upsample(z1)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Return h of `num` draws z2 ~ N(0, I), z1 ~ p(z1 | z2)."""
        z2 = standard_normal((num, self.latent_dim), device_of(self), generator)
        return self.to_h((z2, self.sample_bottom(z2, generator)))

    def sample_bottom(self, z2: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z1 ~ p(z1 | z2): (B, K2) to (B, K1, H', W')."""
        return self.prior.sample(self._prior_h(z2), generator=generator)

    def _prior_h(self, z2: Tensor) -> Tensor:
        z2 = z2.to(dtype_of(self.top_head))
        return z2 if self.prior_upsample is None else self.prior_upsample(z2)

    def extra_repr(self) -> str:
        """Return shapes, levels, latents and the prior's class."""
        shape, levels = self.input.image_shape, self.input.num_levels
        prior = type(self.prior).__name__
        return f"image_shape={shape}, num_levels={levels}, {super().extra_repr()}, prior={prior}"

    def _posteriors(self, x: Tensor | None) -> tuple[GaussianPosterior, GaussianPosterior]:
        features = self.bottom(self.input(x))
        top = GaussianPosterior.of(self.top_head(self.top(features).flatten(1)), self.scale)
        bottom = self.bottom_head(features)
        return top, GaussianPosterior.of(bottom, self.scale, standard_prior=False)
