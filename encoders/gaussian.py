"""Encoder of a variational autoencoder: diagonal Gaussian q(z|x), standard normal p(z)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from encoders.arguments import check_count
from encoders.base import (
    Code,
    Encoder,
    Noise,
    batch_of,
    device_of,
    dtype_of,
)
from encoders.layers import Features, LevelInput, output_shape, pyramid, stage_channels
from encoders.posterior import (
    GaussianPosterior,
    Scale,
    check_scale,
    standard_normal,
    standard_normal_log_prob,
)


class GaussianEncoder(Encoder):
    """q(z|x) = N(mean, diag(std^2)) with p(z) = N(0, I); the score is a bound.

    levels -> [-1, 1] -> network -> linear -> (mean, std) -> z = mean + std * noise -> h

    The rate is the KL divergence in closed form, per dimension (mean^2 + std^2 - 1) / 2 - log std.

    Args:
        image_shape: (C, H, W), any size.
        latent_dim: K, the dimensions of z.
        num_levels: the number of levels of x.
        hidden_channels: channels at full size; each halving doubles them, up to four times.
        num_blocks: residual blocks at each size.
        embedding_dim: width of a learned embedding of the levels (0: scale them to [-1, 1]).
        scale: "exp" for std = exp(s); "softsign" for std = (softsign(s) + 1) / 2, which is below 1.
        network: your own feature network in place of the built-in one, from floats in [-1, 1],
            (B, C, H, W), to features of any shape. Batch normalization makes each example depend
            on the rest of its batch in training mode: score in evaluation mode.
        upsample: turns z (B, K) into a map h (B, K', H', W') (see `Upsample`); None gives h = z.

    Raises:
        ValueError: x of another shape, dtype or level; z of another shape.

    Source: D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", 2013,
    https://arxiv.org/abs/1312.6114; the bounded scale: I. Gulrajani et al., "PixelVAE: A Latent
    Variable Model for Natural Images", 2016, https://arxiv.org/abs/1611.05013 (code).

    >>> encoder = GaussianEncoder((1, 8, 8), 4, num_levels=17, hidden_channels=8)
    >>> code = encoder(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    >>> code.h.shape, code.rate.shape, code.kl[0].shape
    (torch.Size([2, 4]), torch.Size([2]), torch.Size([2, 4]))
    """

    has_latents = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        num_levels: int = 256,
        hidden_channels: int = 32,
        num_blocks: int = 1,
        embedding_dim: int = 0,
        scale: Scale = "exp",
        network: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ):
        super().__init__()
        check_scale(scale)
        self.latent_dim = check_count(latent_dim, "latent_dim")
        check_count(hidden_channels, "hidden_channels")
        self.latent_shapes = ((latent_dim,),)
        self.scale: Scale = scale
        self.input = LevelInput(image_shape, num_levels, embedding_dim)
        size = (image_shape[1], image_shape[2])
        in_shape = (self.input.out_channels, *size)
        if network is None:
            channels = stage_channels(hidden_channels, len(pyramid(size)))
            network = Features(in_shape, channels, num_blocks=num_blocks)
        self.network = network
        self.head = nn.Linear(prod(output_shape(self.network, in_shape)), 2 * latent_dim)
        self.upsample = upsample
        self.code_shape = (
            (latent_dim,) if upsample is None else output_shape(upsample, (latent_dim,))
        )

    def forward(self, x: Tensor | None, y: object = None, *, noise: Noise | None = None) -> Code:
        """Encode levels (B, C, H, W), drawing one z each; y is ignored."""
        return self._draw(self._posterior(x), noise)

    def draws(self, x: Tensor, y: object = None, *, num: int, noise: Noise | None = None) -> Code:
        """Return codes of `num` draws per image, from one pass of the network."""
        return self._draw(self._posterior(x).repeat(num), noise)

    def _draw(self, posterior: GaussianPosterior, noise: Noise | None) -> Code:
        z, log_q = posterior.draw(None if noise is None else noise[0])
        kl = posterior.kl()
        log_weight = (standard_normal_log_prob(z) - log_q).sum(1).float()
        rate = kl.sum(1).float()
        return Code(h=self.to_h((z,)), rate=rate, log_weight=log_weight, kl=(kl,), z=(z,))

    def posterior(self, x: Tensor, y: object = None) -> tuple[GaussianPosterior]:
        """Return (q(z|x),), of (B, K) latents: float64 for a float64 model, else float32."""
        return (self._posterior(x),)

    def posterior_params(self, x: Tensor | None) -> Tensor:
        """Return the network's output (B, 2K): the means, and what gives the deviations."""
        features = self.network(self.input(x).to(dtype_of(self.network)))
        return self.head(features.flatten(1))

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return h of a latent (B, K): z itself, or its upsampled map."""
        (latent,) = check_latents(z, self.latent_shapes)
        latent = latent.to(dtype_of(self.head))
        return latent if self.upsample is None else self.upsample(latent)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Return h of `num` draws z ~ N(0, I)."""
        return self.to_h((standard_normal((num, self.latent_dim), device_of(self), generator),))

    def extra_repr(self) -> str:
        """Return shapes, levels and latents."""
        shape, levels = self.input.image_shape, self.input.num_levels
        return f"image_shape={shape}, num_levels={levels}, {super().extra_repr()}"

    def _posterior(self, x: Tensor | None) -> GaussianPosterior:
        return GaussianPosterior.of(self.posterior_params(x), self.scale)


def check_latents(z: tuple[Tensor, ...], shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    """Return z if it holds one batch per level, of these shapes, else raise a ValueError."""
    is_tuple = isinstance(z, tuple)
    if not is_tuple or tuple(tuple(level.shape[1:]) for level in z) != shapes:
        raise ValueError(
            "expected z to be a tuple of one tensor per level, top level first, of shapes "
            f"{' and '.join(map(batch_of, shapes))}, got "
            f"{tuple(tuple(level.shape) for level in z) if is_tuple else f'a {type(z).__name__}'}"
        )
    return z
