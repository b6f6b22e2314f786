"""A small vector quantizer: an encoder with discrete latents, whose posterior is not Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Annotation, Code, Encoder, Noise, Posterior
from encoders.gaussian import check_latents
from encoders.layers import LevelInput

COMMITMENT = 0.25


class PointMass(Posterior):
    """All mass on one of `num_codes` vectors per position, under a uniform prior over them."""

    def __init__(self, vectors: Tensor, num_codes: int):
        self.mean, self.num_codes = vectors, num_codes

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.mean

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.where((z == self.mean).all(1), 0.0, -torch.inf)  # (B, H', W')

    def kl(self) -> Tensor:
        codes = self.mean[:, 0].flatten(1)
        return torch.full_like(codes, math.log(self.num_codes), dtype=torch.float32)


class Quantizer(Encoder):
    """x -> features (B, F, H', W') -> nearest of `num_codes` vectors, straight through.

    Source: van den Oord et al., "Neural Discrete Representation Learning", 2017,
    https://arxiv.org/abs/1711.00937.
    """

    has_latents = True
    gaussian_latents = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int = 256,
        num_codes: int = 8,
        features: int = 3,
    ):
        super().__init__()
        self.input = LevelInput(image_shape, num_levels)
        self.network = nn.Conv2d(image_shape[0], features, 3, stride=2, padding=1)
        self.codebook = nn.Parameter(0.3 * torch.randn(num_codes, features))
        size = ((image_shape[1] + 1) // 2, (image_shape[2] + 1) // 2)
        self.code_shape = (features, *size)
        self.latent_shapes = (self.code_shape,)

    def forward(
        self, x: Tensor | None, y: Annotation = None, *, noise: Noise | None = None
    ) -> Code:
        features = self._features(x)
        chosen = self._nearest(features)
        z = chosen.detach() + (features - features.detach())  # exactly a vector of the codebook
        kl = PointMass(chosen, len(self.codebook)).kl()
        rate = kl.sum(1)
        pull = F.mse_loss(chosen, features.detach(), reduction="none")
        commitment = F.mse_loss(features, chosen.detach(), reduction="none")
        auxiliary = (pull + COMMITMENT * commitment).float().flatten(1).sum(1)
        return Code(self.to_h((z,)), rate, -rate, (kl,), (z.float(),), auxiliary)

    def posterior(self, x: Tensor, y: Annotation = None) -> tuple[PointMass]:
        return (PointMass(self._nearest(self._features(x)), len(self.codebook)),)

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        (vectors,) = check_latents(z, self.latent_shapes)
        return vectors.to(self.codebook.dtype)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        device = self.codebook.device
        where = device if generator is None else generator.device
        shape = (num, *self.code_shape[1:])
        codes = torch.randint(len(self.codebook), shape, generator=generator, device=where)
        return self.codebook[codes.to(device)].movedim(-1, 1)

    def _features(self, x: Tensor | None) -> Tensor:
        return self.network(self.input(x).to(self.codebook.dtype))

    def _nearest(self, features: Tensor) -> Tensor:
        """The codebook's nearest vector at each position, (B, F, H', W')."""
        each = features.movedim(1, -1)[..., None, :].to(self.codebook.dtype)  # (B, H', W', 1, F)
        codes = (each - self.codebook).square().sum(-1).argmin(-1)
        return self.codebook[codes].movedim(-1, 1)


class FreeQuantizer(Quantizer):
    """The same without a prior: the codes cost nothing, and the score is "given code"."""

    has_latents = False
    given = "code"

    def forward(
        self, x: Tensor | None, y: Annotation = None, *, noise: Noise | None = None
    ) -> Code:
        code = super().forward(x, y)
        zeros = torch.zeros_like(code.rate)
        return Code(code.h, zeros, zeros, auxiliary=code.auxiliary)
