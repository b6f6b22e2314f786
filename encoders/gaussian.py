"""The encoder of a variational autoencoder: a diagonal Gaussian q(z|x), a standard normal p(z)."""

from __future__ import annotations

from math import prod
from typing import Literal

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
    repeat,
    standard_normal,
)
from encoders.layers import Features, LevelInput, output_shape, pyramid, stage_channels

Scale = Literal["exp", "softsign"]


class GaussianEncoder(Encoder):
    """q(z|x) = N(mean, diag(std^2)) with p(z) = N(0, I); what it yields is a "bound".

    levels -> [-1, 1] -> network -> linear -> (mean, std) -> z = mean + std * noise -> h

    The rate is the KL divergence in closed form, per dimension (mean^2 + std^2 - 1) / 2 - log std.

    Args:
        image_shape: (C, H, W), any size.
        latent_dim: K, the dimensions of z.
        num_levels: x holds levels below this.
        hidden_channels: channels at full size, doubled with each halving up to four times this.
        num_blocks: residual blocks per size.
        embedding_dim: 0 to scale levels to [-1, 1], else the width of a learned table of levels.
        scale: "exp" for std = exp(s); "softsign" for std = (softsign(s) + 1) / 2, which is below 1.
        network: your own feature network in place of the built-in one, from floats in [-1, 1],
            (B, C, H, W), to features of any shape. Batch normalisation in it ties the examples of
            a batch together in training mode: score in evaluation mode.
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

    kind = "bound"

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
        return self._draw(*self._posterior(x), noise)

    def draws(self, x: Tensor, y: object = None, *, num: int, noise: Noise | None = None) -> Code:
        """Codes of `num` draws for each image, of one pass of the network."""
        mean, std = self._posterior(x)
        return self._draw(repeat(mean, num), repeat(std, num), noise)

    def _draw(self, mean: Tensor, std: Tensor, noise: Noise | None) -> Code:
        z, log_q = draw(mean, std, None if noise is None else noise[0])
        kl = kl_to_standard_normal(mean, std)
        log_weight = (standard_normal_log_prob(z) - log_q).sum(1).float()
        rate = kl.sum(1).float()
        return Code(h=self.to_h((z,)), rate=rate, log_weight=log_weight, kl=(kl,), z=(z,))

    def posterior(self, x: Tensor, y: object = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """((mean, std),), each (B, K): float64 of a float64 model, else float32."""
        return (self._posterior(x),)

    def posterior_params(self, x: Tensor | None) -> Tensor:
        """(B, 2K), from which `mean_and_std` makes the posterior."""
        features = self.network(self.input(x).to(dtype_of(self.network)))
        return self.head(features.flatten(1))

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        """h of one latent (B, K): z itself, or its upsampled map."""
        (latent,) = check_latents(z, self.latent_shapes)
        latent = latent.to(dtype_of(self.head))
        return latent if self.upsample is None else self.upsample(latent)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """h of `num` draws z ~ N(0, I)."""
        return self.to_h((standard_normal((num, self.latent_dim), device_of(self), generator),))

    def _posterior(self, x: Tensor | None) -> tuple[Tensor, Tensor]:
        return mean_and_std(self.posterior_params(x), self.scale)


def check_scale(scale: str) -> None:
    """Raise a ValueError unless the scale is one of the two."""
    if scale not in ("exp", "softsign"):
        raise ValueError(f'expected scale "exp" or "softsign", got {scale!r}')


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


def mean_and_std(params: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """Split (B, 2K, ...) into mean and positive standard deviation, (B, K, ...) each.

    They are of the parameters' own type, but at least float32.
    """
    precise = torch.promote_types(params.dtype, torch.float32)
    mean, s = params.to(precise).chunk(2, dim=1)
    if scale == "exp":
        return mean, s.exp()
    # (softsign(s) + 1) / 2, written so that a very negative s doesn't round to zero.
    half_tail = 0.5 / (1 + s.abs())
    return mean, torch.where(s < 0, half_tail, 1 - half_tail)


def draw(mean: Tensor, std: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw z = mean + std * noise; return it and log q(z|x) in nats per dimension."""
    noise = (torch.randn_like(mean, dtype=torch.float32) if noise is None else noise).to(mean)
    # From the noise, not from (z - mean) / std, which cancels where std is small.
    return mean + std * noise, standard_normal_log_prob(noise) - std.log()


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats per dimension."""
    return (mean.square() + std.square() - 1) / 2 - std.log()


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, 1) in nats per dimension."""
    return -0.5 * z.square() - 0.9189385332046727  # log(2 pi) / 2
