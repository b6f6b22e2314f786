"""Likelihood heads: what a decoder's parameters say of a pixel, log p(x | params) and a draw.

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

from decoders.arguments import check_count


class Likelihood(ABC):
    """A family of distributions of one pixel's channels.

    Attributes:
        num_levels: how many integer levels a sub-pixel has, or None where x is continuous.
        orders_channels: whether it models the channels of a pixel jointly itself. A network under
            it must not look at the pixel's own channels.
    """

    num_levels: int | None = None
    orders_channels = False

    @abstractmethod
    def num_params(self, channels: int) -> int:
        """P, the number of parameters of a pixel of that many channels.

        Unless `orders_channels`, those of each channel lie together, channel by channel: a decoder
        that orders the channels shows each block of P / C parameters the earlier channels.
        """

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities in nats.

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
        """True where parameters (B, P, *S) give a distribution, of any shape; False for NaN."""
        return params.isfinite()


class Discrete(Likelihood):
    """A likelihood over integer levels 0..num_levels-1, drawn by inverting its distribution."""

    num_levels: int

    def __init__(self, num_levels: int = 256):
        self.num_levels = check_count(num_levels, "num_levels", 2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_levels={self.num_levels})"

    @abstractmethod
    def level_log_probs(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Normalised log-probabilities of every level of one channel, in nats.

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
        """`level_log_probs` up to a constant, where that is cheaper; (B, L, *S)."""
        return self.level_log_probs(params, x, channel)


class Categorical(Discrete):
    """Independent probabilities of every level: softmax over `num_levels` logits a channel.

    The parameters are the logits, (B, C * L, *S), channel by channel. A head of zeros is uniform:

    >>> x = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    >>> round(Categorical(4).log_prob(torch.zeros(1, 4, 2, 2), x).sum().item() / -math.log(2), 5)
    8.0
    """

    def num_params(self, channels: int) -> int:
        return channels * self.num_levels

    def defined(self, params: Tensor) -> Tensor:
        """False for logits of NaN or +inf, or all -inf; some of -inf are levels ruled out."""
        return params.unflatten(1, (-1, self.num_levels)).amax(dim=2).isfinite()

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        check_levels(x)
        check_trainable(params)
        # Channels last, the logits of a sub-pixel lie side by side, and nothing is copied.
        logits = at_least_float32(params.movedim(1, -1).reshape(-1, self.num_levels))
        levels = x.movedim(1, -1)
        # Not F.cross_entropy, which ONNX's export takes for a mean over a batch of any size.
        log_probs = F.log_softmax(logits, dim=1).gather(1, levels.reshape(-1, 1).long())
        return log_probs.view(levels.shape).movedim(-1, 1)

    def level_log_probs(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return F.log_softmax(at_least_float32(self.level_logits(params, x, channel)), dim=1)

    def level_logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return params[:, channel * self.num_levels : (channel + 1) * self.num_levels]


FLOAT32_LEVELS = 4096
"""Above so many levels a mixture of logistics is computed in float64: in float32 the rounding of
the edges between 65,536 would add up to 1e-4 nats a sub-pixel."""


class DiscretizedLogisticMixture(Discrete):
    """A mixture of logistic distributions, integrated over the bin of each level.

    The outermost bins reach to infinity, so that the levels' probabilities sum to one. The mean of
    a channel depends linearly on the earlier channels of its pixel, and the mixture component is
    shared by the channels.

    Scales go down to e⁻⁷, as published for 256 levels, where the likeliest level of a component has
    at most 97 % (0.04 bits). With more levels they go as far down in proportion to a bin's width,
    so that this holds too; with fewer, e⁻⁷ is narrow beside a bin, and a level may be certain.

    The parameters of a pixel of C channels with M components are M mixture logits, C * M means,
    C * M log-scales and C * (C - 1) / 2 * M coefficients.

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
        """The parameters in a type that tells the edges of all levels apart."""
        if self.num_levels > FLOAT32_LEVELS:
            return params.to(widest_float(params.device))
        return at_least_float32(params)

    def _chain(self, params: Tensor, x: Tensor, channels: int) -> tuple[Tensor, list[Tensor]]:
        """The log-weights (B, M, *S), and of the first channels log p of x under each component."""
        log_weights = F.log_softmax(at_least_float32(params[:, : self.num_components]), dim=1)
        log_probs = []
        for channel in range(channels):
            mean, log_scale = self._logistic(params, x, channel)
            log_probs.append(self._bin_log_prob(mean, log_scale, x[:, channel].unsqueeze(1)))
        return log_weights, log_probs

    def _logistic(self, params: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (B, M, *S) each, of one channel, in the [-1, 1] scale of levels."""
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
        """The log-probability of the bin around each level: a difference of two sigmoids."""
        half_bin = 1 / (self.num_levels - 1)
        inverse_scale = torch.exp(-log_scale)
        centred = level.to(mean.dtype) * (2 * half_bin) - 1 - mean
        upper, lower = inverse_scale * (centred + half_bin), inverse_scale * (centred - half_bin)
        # log(σ(u) − σ(l)) = log σ(u) + log σ(−l) + log(1 − exp(l − u)), exact in both tails.
        width = 2 * half_bin * inverse_scale
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        log_prob = torch.where(level == 0, F.logsigmoid(upper), inner)
        return torch.where(level == self.num_levels - 1, F.logsigmoid(-lower), log_prob)


class DiagonalGaussian(Likelihood):
    """Independent normal distributions, for maps of continuous latents.

    The parameters are a mean and a log standard deviation of each channel in turn, (B, 2 * C, *S),
    the latter kept within (-bound, bound) by a tanh.

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


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has no wider one."""
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
            "gradients overflow: convert them by .float(), or score under torch.no_grad()"
        )


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
