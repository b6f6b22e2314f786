"""Image autoencoders: networks that map an image to a code without noise."""

from __future__ import annotations

import math

from torch import Tensor, nn

from encoders.arguments import check_count, check_shape
from encoders.base import Code, Encoder, check_images, dtype_of, fixed_code
from encoders.layers import Features, LevelInput, pyramid, stage_channels

CODE_SHAPE = "code_shape (K,) or (K, H', W')"


class ConvEncoder(Encoder):
    """A convolutional encoder x -> h, the first half of an autoencoder.

    levels -> [-1, 1] -> convolutions that halve the map -> linear layer -> h

    A linear layer over a map of at most 4x4 gives a vector code. A 1x1 convolution at size H'xW'
    gives a map code (K, H', W'); H'xW' must be the image's size, halved any number of times (odd
    sides round up). The code is free, so log p(x | h) is not a likelihood of x: it is reported as
    "given code".

    Args:
        image_shape: (C, H, W), any size.
        num_levels: the number of levels of x.
        code_shape: (K,) or (K, H', W').
        hidden_channels: channels at full size; each halving doubles them, up to four times.
        num_blocks: residual blocks at each size.
        embedding_dim: width of a learned embedding of the levels (0: scale them to [-1, 1]).

    Raises:
        ValueError: a code_shape that can't be reached; x of another shape, dtype or level.

    Source: J. Masci et al., "Stacked Convolutional Auto-Encoders for Hierarchical Feature
    Extraction", 2011, https://doi.org/10.1007/978-3-642-21735-7_7 (with strides in place of its
    pooling, trained end to end).

    >>> import torch
    >>> encoder = ConvEncoder((3, 9, 7), code_shape=(16,), hidden_channels=8)
    >>> encoder(torch.zeros(2, 3, 9, 7, dtype=torch.uint8)).h.shape
    torch.Size([2, 16])
    """

    given = "code"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int = 256,
        code_shape: tuple[int, ...] = (64,),
        hidden_channels: int = 32,
        num_blocks: int = 1,
        embedding_dim: int = 0,
    ):
        super().__init__()
        self.code_shape = check_shape(code_shape, CODE_SHAPE, (1, 3))
        check_count(hidden_channels, "hidden_channels")
        check_count(num_blocks, "num_blocks", 0)
        self.input = LevelInput(image_shape, num_levels, embedding_dim)
        until = (code_shape[1], code_shape[2]) if len(code_shape) == 3 else None
        size = (image_shape[1], image_shape[2])
        self.features = Features(
            (self.input.out_channels, *size),
            stage_channels(hidden_channels, len(pyramid(size, until))),
            num_blocks=num_blocks,
        )
        if until:
            self.head = nn.Conv2d(self.features.out_shape[0], code_shape[0], 1)
        else:
            features = math.prod(self.features.out_shape)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(features, code_shape[0]))

    def forward(self, x: Tensor | None, y: object = None) -> Code:
        """Encode levels (B, C, H, W); y is ignored."""
        return fixed_code(self.head(self.features(self.input(x))))

    def extra_repr(self) -> str:
        """Return shapes, levels and what is given."""
        shape, levels = self.input.image_shape, self.input.num_levels
        return f"image_shape={shape}, num_levels={levels}, {super().extra_repr()}"


class Deterministic(Encoder):
    """Your own network x -> h as an encoder; its score is reported as "given code".

    Args:
        network: maps floats in [0, 1], (B, C, H, W), to h, (B, *code_shape).
        code_shape: (K,) or (K, H', W').
        num_levels: the number of levels of x, which are divided by num_levels - 1.

    Raises:
        ValueError: x isn't a batch of levels, or the network's output isn't (B, *code_shape).

    >>> import torch
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> encoder = Deterministic(network, (10,), num_levels=17)
    >>> encoder(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).h.shape
    torch.Size([2, 10])
    """

    given = "code"

    def __init__(self, network: nn.Module, code_shape: tuple[int, ...], *, num_levels: int = 256):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"expected a network that is an nn.Module, got {network!r}")
        self.network = network
        self.code_shape = check_shape(code_shape, CODE_SHAPE, (1, 3))
        self.num_levels = check_count(num_levels, "num_levels", 2)

    def forward(self, x: Tensor | None, y: object = None) -> Code:
        """Encode levels (B, C, H, W); y is ignored."""
        unit = check_images(x, num_levels=self.num_levels).float() / (self.num_levels - 1)
        h = self.network(unit.to(dtype_of(self.network)))
        shape = (unit.shape[0], *self.code_shape)
        if tuple(h.shape) != shape:
            raise ValueError(
                f"expected the network's h of shape {shape}, as code_shape says, got "
                f"{tuple(h.shape)}"
            )
        return fixed_code(h)

    def extra_repr(self) -> str:
        """Return the network's class, shapes, levels and what is given."""
        network = type(self.network).__name__
        return f"{network}, num_levels={self.num_levels}, {super().extra_repr()}"
