"""DiscretizedLogisticMixture: few parameters for many levels, as PixelCNN++ has it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.arguments import check_count
from decoders.likelihoods import (
    Discrete,
    at_least_float32,
    check_levels,
    check_trainable,
    widest_float,
)

FLOAT32_LEVELS = 4096
"""With more levels a mixture of logistics is computed in float64: in float32 the rounding of
the edges between 65,536 would add up to 1e-4 nats a sub-pixel."""


class DiscretizedLogisticMixture(Discrete):
    """A mixture of logistic distributions, integrated over the bin of each level.

    The outermost bins reach to infinity, so that the levels' probabilities sum to one. The mean of
    a channel depends linearly on the earlier channels of its pixel, and the mixture component is
    shared by the channels.

    Scales go down to e⁻⁷, as published for 256 levels, where the likeliest level of a component has
    at most 97 % (0.04 bits). With more levels they go as far down in proportion to a bin's width,
    so that this holds too; with fewer, e⁻⁷ is narrow next to a bin, and a level may be certain.

    The parameters of a pixel of C channels with M components are M mixture logits, C * M means,
    C * M log-scales and C * (C - 1) / 2 * M coefficients.

    Args:
        num_levels: Integer levels of a sub-pixel.
        num_components: Logistic distributions in the mixture.

    Source: Salimans, Karpathy, Chen, Kingma: PixelCNN++: Improving the PixelCNN with Discretized
    Logistic Mixture Likelihood and Other Modifications (2017), https://arxiv.org/abs/1701.05517.

    >>> head = DiscretizedLogisticMixture(num_levels=256, num_components=5)
    >>> params, x = torch.randn(2, head.num_params(3)), torch.zeros(2, 3, dtype=torch.uint8)
    >>> total = head.level_log_probs(params, x, channel=2).exp().sum(dim=1)
    >>> torch.allclose(total, torch.ones(2))
    True
    """

    orders_channels = True

    def __init__(self, num_levels: int = 256, num_components: int = 10):
        super().__init__(num_levels)
        self.num_components = check_count(num_components, "num_components")
        self.lowest_log_scale = -7.0 - max(0.0, math.log((num_levels - 1) / 255))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_levels={self.num_levels}, "
            f"num_components={self.num_components})"
        )

    def num_params(self, channels: int) -> int:
        return self.num_components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        check_levels(x)
        check_trainable(params)
        log_weights, per_channel = self._chain(self._exact(params), x, x.shape[1])
        total = torch.logsumexp(log_weights, dim=1)
        log_probs = []
        for log_prob in per_channel:
            log_weights = log_weights + log_prob
            earlier, total = total, torch.logsumexp(log_weights, dim=1)
            log_probs.append(total - earlier)
        return torch.stack(log_probs, dim=1).to(at_least_float32(params).dtype)

    def level_log_probs(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        check_levels(x)
        exact = self._exact(params)
        log_weights, per_channel = self._chain(exact, x, channel)
        for log_prob in per_channel:
            log_weights = log_weights + log_prob
        mean, log_scale = self._logistic(exact, x, channel)
        levels = torch.arange(self.num_levels, device=params.device)
        levels = levels.view(1, 1, -1, *[1] * (params.dim() - 2))
        bins = self._bin_log_prob(mean.unsqueeze(2), log_scale.unsqueeze(2), levels)
        joint = torch.logsumexp(log_weights.unsqueeze(2) + bins, dim=1)
        log_probs = joint - torch.logsumexp(log_weights, dim=1).unsqueeze(1)
        return log_probs.to(at_least_float32(params).dtype)

    def sample(
        self, params: Tensor, x: Tensor, channel: int, noise: Tensor, temperature: float = 1.0
    ) -> Tensor:
        if temperature != 1:
            return super().sample(params, x, channel, noise, temperature)
        # The distribution function has a closed form: halve the levels until one is left. In
        # float32 it would round to 1 long before its upper tail ends, and edges to their like.
        wide = widest_float(params.device)
        params, noise = params.to(wide), noise.to(wide)
        log_weights, per_channel = self._chain(params, x, channel)
        weights = torch.softmax(sum(per_channel, log_weights), dim=1)
        mean, log_scale = self._logistic(params, x, channel)
        inverse_scale = torch.exp(-log_scale)
        last = self.num_levels - 1
        low, high = torch.zeros_like(noise), torch.full_like(noise, last)
        for _ in range(last.bit_length()):
            middle = (low + high) // 2
            edge = ((2 * middle + (1 - last)) / last).unsqueeze(1)
            below = (weights * torch.sigmoid(inverse_scale * (edge - mean))).sum(dim=1)
            higher = below <= noise
            low, high = torch.where(higher, middle + 1, low), torch.where(higher, high, middle)
        return low.clamp(max=last).long()

    def _exact(self, params: Tensor) -> Tensor:
        """Return the parameters in a type that tells the edges of all levels apart."""
        if self.num_levels > FLOAT32_LEVELS:
            return params.to(widest_float(params.device))
        return at_least_float32(params)

    def _chain(self, params: Tensor, x: Tensor, channels: int) -> tuple[Tensor, list[Tensor]]:
        """Return log-weights (B, M, *S), and log p of the first channels under each component."""
        log_weights = F.log_softmax(at_least_float32(params[:, : self.num_components]), dim=1)
        log_probs = []
        for channel in range(channels):
            mean, log_scale = self._logistic(params, x, channel)
            log_probs.append(self._bin_log_prob(mean, log_scale, x[:, channel].unsqueeze(1)))
        return log_weights, log_probs

    def _logistic(self, params: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale of one channel, (B, M, *S) each, for levels in [-1, 1]."""
        count, channels = self.num_components, x.shape[1]
        params = at_least_float32(params)
        mean = params[:, count * (1 + channel) : count * (2 + channel)]
        start = count * (1 + channels)
        log_scale = params[:, start + count * channel : start + count * (channel + 1)]
        start = count * (1 + 2 * channels + channel * (channel - 1) // 2)
        for earlier in range(channel):
            coefficient = torch.tanh(params[:, start : start + count])
            value = x[:, earlier].unsqueeze(1).to(params.dtype)
            mean = mean + coefficient * (value * (2 / (self.num_levels - 1)) - 1)
            start += count
        return mean, log_scale.clamp(self.lowest_log_scale, 15.0)

    def _bin_log_prob(self, mean: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """Return the log-probability of the bin around each level: a difference of two sigmoids."""
        half_bin = 1 / (self.num_levels - 1)
        inverse_scale = torch.exp(-log_scale)
        centered = level.to(mean.dtype) * (2 * half_bin) - 1 - mean
        upper, lower = inverse_scale * (centered + half_bin), inverse_scale * (centered - half_bin)
        # log(σ(u) − σ(l)) = log σ(u) + log σ(−l) + log(1 − exp(l − u)), exact in both tails.
        width = 2 * half_bin * inverse_scale
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        log_prob = torch.where(level == 0, F.logsigmoid(upper), inner)
        return torch.where(level == self.num_levels - 1, F.logsigmoid(-lower), log_prob)
