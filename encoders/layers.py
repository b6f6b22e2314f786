"""Shared networks of encoders: levels to features, features to a code, a code to a map."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.arguments import check_count, check_shape
from encoders.base import batch_of, check_images, device_of, dtype_of
from encoders.recorded import Recorded

Size = tuple[int, int]


class LevelInput(nn.Module):
    """Turns levels (B, C, H, W) into floats (B, out_channels, H, W).

    Levels are uint8, or int64 if there are more than 256. They are scaled to [-1, 1], or, with
    `embedding_dim` E > 0, embedded as E learned numbers per level, shared by the channels
    (out_channels = C * E).

    Raises:
        ValueError: x has another shape or dtype, or a level of `num_levels` or more.

    Source: the embedding is that of I. Gulrajani et al., "PixelVAE: A Latent Variable Model for
    Natural Images", 2016, https://arxiv.org/abs/1611.05013 (code: EMBED_INPUTS).
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_levels: int = 256, embedding_dim: int = 0
    ):
        super().__init__()
        self.num_levels = check_count(num_levels, "num_levels", 2)
        self.image_shape = check_shape(image_shape, "image_shape (C, H, W)")
        check_count(embedding_dim, "embedding_dim", 0)
        self.embedding = nn.Embedding(num_levels, embedding_dim) if embedding_dim else None
        self.out_channels = image_shape[0] * (embedding_dim or 1)
        if self.embedding is not None:
            # Cosines over the levels, one frequency per dimension: with random vectors, images
            # would look like noise until the embedding is learned.
            levels = torch.arange(num_levels)[:, None] + 0.5
            frequencies = torch.arange(1, min(embedding_dim, num_levels - 1) + 1)
            waves = 2**0.5 * torch.cos(torch.pi / num_levels * frequencies * levels)
            with torch.no_grad():
                self.embedding.weight[:, : len(frequencies)] = waves

    def forward(self, x: Tensor | None) -> Tensor:
        """Turn levels into floats: float32, or the dtype of the embedding."""
        x = check_images(x, self.image_shape, self.num_levels)
        if self.embedding is None:
            return 2 * x.float() / (self.num_levels - 1) - 1
        embedded = self.embedding(x.long())  # (B, C, H, W, E)
        return embedded.permute(0, 1, 4, 2, 3).flatten(1, 2)


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), with a norm that never mixes examples.

    `dilation` is that of the first convolution, for a larger receptive field.
    """

    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return x + self.residual(x)


class Features(nn.Module):
    """A convolutional network (B, C, H, W) -> (B, *out_shape) that halves the map between stages.

    Stage i has `channels[i]` channels and `num_blocks` residual blocks; every stage after the first
    begins with a convolution of stride 2. Odd sides round up, so any size works.

    >>> Features((3, 9, 6), channels=(8, 16)).out_shape
    (16, 5, 3)
    """

    def __init__(
        self, in_shape: tuple[int, int, int], channels: Sequence[int], *, num_blocks: int = 1
    ):
        super().__init__()
        width, size = in_shape[0], (in_shape[1], in_shape[2])
        layers: list[nn.Module] = []
        for stage, out in enumerate(channels):
            layers.append(nn.Conv2d(width, out, 3, stride=2 if stage else 1, padding=1))
            layers.extend(ResidualBlock(out) for _ in range(num_blocks))
            width, size = out, halve(size) if stage else size
        # Without the norm, a few large steps can make every ReLU inactive for good: a dead code.
        self.layers = nn.Sequential(*layers, nn.GroupNorm(1, width), nn.ReLU())
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d):
                keep_variance(layer)
        self.out_shape = (width, *size)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features of a float map, which is cast to the dtype of the weights."""
        return self.layers(x.to(dtype_of(self)))


class Upsample(Recorded, nn.Module):
    """Turns a latent, (B, K) or (B, K, h, w), into a map (B, *out_shape).

    A linear layer turns a vector into a map of at most 4x4. Then each transposed convolution
    doubles the map, cropped to the next size (8x8 to 7x7), up to (K', H', W').

    Raises:
        ValueError: `in_shape` is a map whose size halving out_shape's doesn't reach.

    Source: the upsampling decoder of I. Gulrajani et al., "PixelVAE: A Latent Variable Model for
    Natural Images", 2016, https://arxiv.org/abs/1611.05013.

    >>> Upsample((16,), (8, 28, 28))(torch.zeros(2, 16)).shape
    torch.Size([2, 8, 28, 28])
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, int, int],
        *,
        hidden_channels: int = 64,
    ):
        super().__init__()
        form = "in_shape (K,) or (K, h, w) and out_shape (K', H', W')"
        check_shape(in_shape, form, (1, 3))
        check_shape(out_shape, form)
        target = (out_shape[1], out_shape[2])
        if len(in_shape) == 1:
            sizes = pyramid(target)
            smallest = (hidden_channels, *sizes[-1])
            self.first = nn.Sequential(
                nn.Linear(in_shape[0], prod(smallest)), nn.Unflatten(1, smallest)
            )
        else:
            sizes = pyramid(target, until=(in_shape[1], in_shape[2]))
            self.first = nn.Sequential(nn.Conv2d(in_shape[0], hidden_channels, 3, padding=1))
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.sizes = sizes[-2::-1]
        self.stages = nn.ModuleList(
            nn.ConvTranspose2d(hidden_channels, hidden_channels, 4, stride=2, padding=1)
            for _ in self.sizes
        )
        self.last = nn.Conv2d(hidden_channels, out_shape[0], 3, padding=1)
        keep_variance(self.first[0])
        for layer in (*self.stages, self.last):
            keep_variance(layer, gain=2)  # the ReLU in front of it passes half of the variance

    def forward(self, z: Tensor) -> Tensor:
        """Turn latents into a map; they are cast to the dtype of the weights."""
        if tuple(z.shape[1:]) != self.in_shape:
            raise ValueError(f"expected z of shape {batch_of(self.in_shape)}, got {tuple(z.shape)}")
        h = self.first(z.to(self.last.weight.dtype))
        for stage, (height, width) in zip(self.stages, self.sizes, strict=True):
            h = stage(F.relu(h))[..., :height, :width]
        return self.last(F.relu(h))


def keep_variance(layer: nn.Module, gain: float = 1.0) -> None:
    """Initialize a layer so that its output has `gain` times the mean square of its input.

    PyTorch's default weights shrink their input, above all those of a transposed convolution. A
    latent that reaches the pixels at a hundredth of its size would collapse early in training.

    Source: He et al.: Delving Deep into Rectifiers (2015), https://arxiv.org/abs/1502.01852.
    """
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    if isinstance(layer, nn.Linear):
        inputs = layer.in_features
    else:
        inputs = layer.in_channels * prod(layer.kernel_size)
        if isinstance(layer, nn.ConvTranspose2d):
            inputs //= prod(layer.stride)
    nn.init.normal_(layer.weight, std=(gain / inputs) ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def halve(size: Size) -> Size:
    """Return the size after a convolution of stride 2: half, rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def pyramid(size: Size, until: Size | None = None) -> list[Size]:
    """Return the sizes from `size` by halving to `until`, or to the first one of at most 4x4.

    >>> pyramid((28, 28))
    [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    sizes = [size]
    while sizes[-1] != (1, 1) and (max(sizes[-1]) > 4 if until is None else sizes[-1] != until):
        sizes.append(halve(sizes[-1]))
    if until and sizes[-1] != until:
        reached = " or ".join(f"{h}x{w}" for h, w in sizes)
        raise ValueError(
            f"expected a map of {reached}, as halving {size[0]}x{size[1]} gives, got "
            f"{until[0]}x{until[1]}"
        )
    return sizes


def stage_channels(hidden_channels: int, num_stages: int) -> tuple[int, ...]:
    """Return channels per stage: each halving doubles them, up to four times `hidden_channels`."""
    return tuple(hidden_channels * min(2**stage, 4) for stage in range(num_stages))


def output_shape(module: nn.Module, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one example's output, found by a forward pass of zeros."""
    # A copy in evaluation mode, so that a user's batch normalization keeps its statistics.
    module = copy.deepcopy(module).eval()
    zeros = torch.zeros(1, *in_shape, dtype=dtype_of(module), device=device_of(module))
    with torch.no_grad():
        return tuple(module(zeros).shape[1:])
