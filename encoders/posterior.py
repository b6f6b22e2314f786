"""Posteriors q(z|x): the distribution of a latent given an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["exp", "softsign"]


class Posterior(ABC):
    """q(z|x) of one latent level, for a batch of B images; log-probabilities are in nats.

    A new posterior sets `mean` and implements `sample` and `log_prob`, and `kl` where the
    divergence from the prior has a closed form.

    Attributes:
        mean: (B, ...), the mean of z, or the vector that represents z in interpolations, probes
            and pictures.
        std: (B, ...), the standard deviation of a diagonal Gaussian; None for any other posterior.
            Mutual information and bits-back coding are defined where there is one.
    """

    mean: Tensor
    std: Tensor | None = None

    @abstractmethod
    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw one z per image.

        Args:
            noise: random numbers to use in place of a generator's, as the posterior defines them.
            generator: makes the draw reproducible; None for PyTorch's global generator.
        """

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z|x) in nats, one number per dimension of z or per code; sum for z's own."""

    def kl(self) -> Tensor:
        """Return KL(q(z|x) || p(z)) in nats per dimension, (B, D)."""
        raise TypeError(
            f"{type(self).__name__} has no KL divergence in closed form: use the rate that the "
            "encoder estimates at a drawn z"
        )

    def in_float32(self) -> Posterior:
        """Return the posterior as float32 arithmetic gives it, where that differs."""
        return self


class GaussianPosterior(Posterior):
    """N(mean, diag(std^2)), with a standard normal prior unless another is learned.

    Args:
        mean: (B, ...).
        std: (B, ...), positive.
        standard_prior: whether p(z) = N(0, I), for which `kl` has a closed form.

    >>> posterior = GaussianPosterior(torch.zeros(2, 3), torch.ones(2, 3))
    >>> posterior.sample().shape, posterior.kl().sum().item()
    (torch.Size([2, 3]), 0.0)
    """

    std: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, mean: Tensor, std: Tensor, *, standard_prior: bool = True):
        self.mean, self.std, self.standard_prior = mean, std, standard_prior
        self._source: tuple[Tensor, Scale] | None = None

    @classmethod
    def of(cls, params: Tensor, scale: Scale, *, standard_prior: bool = True) -> GaussianPosterior:
        """Build the posterior of a network's output (B, 2K, ...); see `mean_and_std`."""
        posterior = cls(*mean_and_std(params, scale), standard_prior=standard_prior)
        posterior._source = params, scale
        return posterior

    def draw(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw z = mean + std * noise; return it and log q(z|x) in nats per dimension."""
        if noise is None and generator is None:
            noise = torch.randn_like(self.mean, dtype=torch.float32)
        elif noise is None:
            noise = standard_normal(tuple(self.mean.shape), self.mean.device, generator)
        noise = noise.to(self.mean)
        # From the noise, not from (z - mean) / std, which cancels where std is small.
        log_q = standard_normal_log_prob(noise) - self.std.log()
        return self.mean + self.std * noise, log_q

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw z = mean + std * noise, with standard normal noise."""
        return self.draw(noise, generator=generator)[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z|x) in nats per dimension."""
        return standard_normal_log_prob((z - self.mean) / self.std) - self.std.log()

    def kl(self) -> Tensor:
        """Return KL(q(z|x) || N(0, I)) in nats per dimension, (B, D)."""
        if not self.standard_prior:
            return super().kl()
        return ((self.mean.square() + self.std.square() - 1) / 2 - self.std.log()).flatten(1)

    def repeat(self, times: int) -> GaussianPosterior:
        """Return a posterior of `times` copies of each image, image by image."""
        parts = (part.repeat_interleave(times, dim=0) for part in (self.mean, self.std))
        return GaussianPosterior(*parts, standard_prior=self.standard_prior)

    def in_float32(self) -> GaussianPosterior:
        """Return what the network's output gives when it is rounded to float32 first."""
        if self._source is None:
            mean, std = self.mean.float(), self.std.float()
            return GaussianPosterior(mean, std, standard_prior=self.standard_prior)
        params, scale = self._source
        return GaussianPosterior.of(params.float(), scale, standard_prior=self.standard_prior)


class DeterministicPosterior(Posterior):
    """All probability mass on one code, which costs nothing: there is no prior and no rate.

    Args:
        code: (B, ...).
    """

    def __init__(self, code: Tensor):
        self.mean = code

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the code."""
        return self.mean

    def log_prob(self, z: Tensor) -> Tensor:
        """Return 0 for the code's own numbers and -inf for any other."""
        return torch.where(z == self.mean, 0.0, -torch.inf)


def check_scale(scale: str) -> None:
    """Raise a ValueError unless the scale is one of the two."""
    if scale not in ("exp", "softsign"):
        raise ValueError(f'expected scale "exp" or "softsign", got {scale!r}')


def mean_and_std(params: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """Split (B, 2K, ...) into mean and positive standard deviation, (B, K, ...) each.

    They have the dtype of the parameters, or float32 if that is wider.
    """
    precise = torch.promote_types(params.dtype, torch.float32)
    mean, s = params.to(precise).chunk(2, dim=1)
    if scale == "exp":
        return mean, s.exp()
    # (softsign(s) + 1) / 2, written so that a very negative s doesn't round to zero.
    half_tail = 0.5 / (1 + s.abs())
    return mean, torch.where(s < 0, half_tail, 1 - half_tail)


def standard_normal(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Return float32 draws from N(0, 1) on `device`, made on the generator's own device."""
    where = device if generator is None else generator.device
    return torch.randn(shape, device=where, dtype=torch.float32, generator=generator).to(device)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Return log N(z; 0, 1) in nats per dimension."""
    return -0.5 * z.square() - 0.9189385332046727  # log(2 pi) / 2
