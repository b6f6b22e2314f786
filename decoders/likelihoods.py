"""Likelihoods: log p(x | params) of a pixel given a decoder's parameters, and draws from it.

The parameters of one pixel are P numbers, `num_params(channels)`. `log_prob` takes them for any
number of pixels at once, and gives one number for each sub-pixel, so that the sum over an image is
its log-probability. Everything is computed in float32 at least, whatever the autocast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.arguments import check_count, shown
from decoders.recorded import Recorded


class Likelihood(Recorded, ABC):
    """A family of distributions of one pixel's channels.

    Attributes:
        num_levels: number of integer levels of a sub-pixel, or None where x is continuous.
        orders_channels: whether it models the channels of a pixel jointly itself. A network under
            it must not look at the pixel's own channels.

    >>> likelihood, params = DiagonalGaussian(), torch.zeros(5, 2, 8, 8)
    >>> x = torch.zeros(5, 1, 8, 8)
    >>> x[:, 0] = likelihood.sample(params, x, channel=0, noise=torch.rand(5, 8, 8))
    >>> likelihood.log_prob(params, x).shape
    torch.Size([5, 1, 8, 8])
    """

    num_levels: int | None = None
    orders_channels = False

    @abstractmethod
    def num_params(self, channels: int) -> int:
        """Return P, the number of parameters of a pixel of that many channels.

        Unless `orders_channels`, they are sorted channel by channel: a decoder
        that orders the channels shows each block of P / C parameters the earlier channels.
        """

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log-probabilities in nats.

        Args:
            params: (B, P, *S), for any shape S of pixels.
            x: (B, C, *S), the pixels.

        Returns:
            (B, C, *S), log p of each sub-pixel given the earlier channels of its pixel.

        Raises:
            ValueError: levels that are not integers; float16 parameters to train, outside autocast.
        """

    @abstractmethod
    def sample(
        self, params: Tensor, x: Tensor, channel: int, noise: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Draw one channel of each pixel.

        Args:
            params: (B, P, *S).
            x: (B, C, *S), of which the channels before `channel` are known.
            channel: which channel is drawn.
            noise: (B, *S), uniform in [0, 1): the same noise gives the same draw.
            temperature: sharpens (below 1; 0 takes the mode) or flattens (above 1); finite.

        Returns:
            (B, *S): levels as int64, or floats where x is continuous.
        """

    def defined(self, params: Tensor) -> Tensor:
        """Return True where parameters (B, P, *S) give a distribution; False for NaN."""
        return params.isfinite()


class Discrete(Likelihood):
    """A likelihood over integer levels 0..num_levels-1, drawn by inverting its distribution.

    >>> x, params = torch.zeros(2, 1, dtype=torch.uint8), torch.randn(2, 4)
    >>> total = Categorical(4).level_log_probs(params, x, channel=0).exp().sum(dim=1)
    >>> torch.allclose(total, torch.ones(2))
    True
    """

    num_levels: int

    def __init__(self, num_levels: int = 256):
        self.num_levels = check_count(num_levels, "num_levels", 2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_levels={self.num_levels})"

    @abstractmethod
    def level_log_probs(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Return normalized log-probabilities of every level of one channel, in nats.

        Args:
            params: (B, P, *S).
            x: (B, C, *S), of which only the channels before `channel` are looked at.
            channel: the channel.

        Returns:
            (B, L, *S).
        """

    def sample(
        self, params: Tensor, x: Tensor, channel: int, noise: Tensor, temperature: float = 1.0
    ) -> Tensor:
        logits = self.level_logits(params, x, channel)
        if temperature == 0:
            return logits.argmax(dim=1)
        wide = widest_float(logits.device)
        if temperature != 1:
            # The highest becomes 0, so that no temperature, however low, gives infinity.
            logits = logits.to(wide)
            logits = logits - logits.amax(dim=1, keepdim=True)
            logits = logits / max(temperature, torch.finfo(wide).tiny)
        cdf = torch.softmax(logits.movedim(1, -1), dim=-1, dtype=wide).cumsum(dim=-1)
        # The last level takes what rounding leaves of the total.
        edges = cdf[..., :-1].contiguous()
        return torch.searchsorted(edges, noise.to(wide).unsqueeze(-1), right=True).squeeze(-1)

    def level_logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Return `level_log_probs` up to a constant, where that is cheaper; (B, L, *S)."""
        return self.level_log_probs(params, x, channel)


class Categorical(Discrete):
    """Independent probabilities of every level: softmax over `num_levels` logits a channel.

    The parameters are the logits, (B, C * L, *S), channel by channel. A head of zeros is uniform.

    Args:
        num_levels: Integer levels of a sub-pixel.

    >>> x = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    >>> round(Categorical(4).log_prob(torch.zeros(1, 4, 2, 2), x).sum().item() / -math.log(2), 5)
    8.0
    """

    def num_params(self, channels: int) -> int:
        return channels * self.num_levels

    def defined(self, params: Tensor) -> Tensor:
        """Return False for logits of NaN or +inf, or all -inf; one of -inf rules its level out."""
        return params.unflatten(1, (-1, self.num_levels)).amax(dim=2).isfinite()

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        check_levels(x)
        check_trainable(params)
        # Channels last, the logits of a sub-pixel are contiguous, and nothing is copied.
        logits = at_least_float32(params.movedim(1, -1).reshape(-1, self.num_levels))
        levels = x.movedim(1, -1)
        # Not F.cross_entropy, which ONNX's export takes for a mean over a batch of any size.
        log_probs = F.log_softmax(logits, dim=1).gather(1, levels.reshape(-1, 1).long())
        return log_probs.view(levels.shape).movedim(-1, 1)

    def level_log_probs(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return F.log_softmax(at_least_float32(self.level_logits(params, x, channel)), dim=1)

    def level_logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return params[:, channel * self.num_levels : (channel + 1) * self.num_levels]


class DiagonalGaussian(Likelihood):
    """Independent normal distributions, for maps of continuous latents.

    The parameters are a mean and a log standard deviation of each channel in turn, (B, 2 * C, *S),
    the latter kept within (-bound, bound) by a tanh.

    Args:
        bound: Largest absolute log standard deviation.

    >>> head = DiagonalGaussian()
    >>> head.log_prob(torch.zeros(1, 2), torch.zeros(1, 1)).item()
    -0.9189385175704956
    """

    def __init__(self, bound: float = 5.0):
        self.bound = bound

    def __repr__(self) -> str:
        return f"{type(self).__name__}(bound={self.bound})"

    def num_params(self, channels: int) -> int:
        return 2 * channels

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        check_trainable(params)
        mean, log_std = at_least_float32(params).unflatten(1, (-1, 2)).unbind(2)
        log_std = self._bounded(log_std)
        z = (x - mean) * torch.exp(-log_std)
        return -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)

    def sample(
        self, params: Tensor, x: Tensor, channel: int, noise: Tensor, temperature: float = 1.0
    ) -> Tensor:
        mean, log_std = at_least_float32(params)[:, 2 * channel : 2 * channel + 2].unbind(1)
        wide = widest_float(noise.device)
        tiny = torch.finfo(wide).eps
        normal = torch.special.ndtri(noise.to(wide).clamp(tiny, 1 - tiny)).to(mean.dtype)
        return mean + temperature * self._bounded(log_std).exp() * normal

    def _bounded(self, log_std: Tensor) -> Tensor:
        return self.bound * torch.tanh(log_std / self.bound)


def resolve_likelihood(likelihood: Likelihood | None, num_levels: int | None) -> Likelihood:
    """Return the given likelihood, or a `Categorical` over `num_levels` (256 unless given)."""
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


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 where the device has no wider type."""
    return torch.float32 if device.type == "mps" else torch.float64


def check_levels(x: Tensor) -> None:
    """Raise a ValueError for levels that are not integers: 3.9 would count as 3, or as a mixture's
    value between two levels."""
    if x.is_floating_point() or x.is_complex():
        raise ValueError(
            f"expected integer levels, got {x.dtype}: turn floats in [0, 1] into levels with "
            "decoders.to_levels"
        )


def check_trainable(params: Tensor) -> None:
    """Raise a ValueError for float16 parameters with a gradient, which float16 can't hold.

    That of a log-scale goes into the millions, float16 to 65,504. Under autocast a `GradScaler`
    sees the overflow and skips the step.
    """
    if (
        params.dtype == torch.float16
        and params.requires_grad
        and not torch.is_autocast_enabled(params.device.type)
    ):
        raise ValueError(
            "expected float32, bfloat16 or autocast to train in, got float16 parameters, whose "
            "gradients overflow: convert them with .float(), or score under torch.no_grad()"
        )


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
