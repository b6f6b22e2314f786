"""Encoder of structure: turns a segmentation map or keypoints into a map of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.arguments import check_count, check_shape
from encoders.base import (
    Annotation,
    Code,
    Encoder,
    check_annotation,
    check_range,
    dtype_of,
    fixed_code,
)
from encoders.layers import ResidualBlock


class MapEncoder(Encoder):
    """h is a map of features of a segmentation map or of keypoints, each position with its context.

    class ids (B, H, W) -> one-hot | keypoints (B, K, H, W) -> resize -> dilated convolutions -> h

    Class ids are resized to the nearest neighbor, since they can't be averaged. Keypoint channels
    are resized by max-pooling, so that no point is lost.

    Args:
        num_channels: the number of classes, or of keypoint channels.
        code_shape: (K', H', W') of h; H'xW' is usually the image's size.
        hidden_channels: channels of the convolutions.
        dilations: dilation of each residual block's first convolution, one block per entry.

    Raises:
        ValueError: y is missing or of another shape or dtype, holds a class out of range, or holds
            uint8 keypoints other than 0 and 1 (a heat map is a float).

    Source: S. Reed et al., "Generating Interpretable Images with Controllable Structure", 2016,
    https://openreview.net/forum?id=Hyvw0L9el.

    >>> import torch
    >>> encoder = MapEncoder(4, (6, 10, 10), hidden_channels=8)
    >>> encoder(None, torch.zeros(2, 20, 20, dtype=torch.uint8)).h.shape
    torch.Size([2, 6, 10, 10])
    """

    given = "map"
    reads_image = False

    def __init__(
        self,
        num_channels: int,
        code_shape: tuple[int, int, int],
        *,
        hidden_channels: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4),
    ):
        super().__init__()
        self.num_channels = check_count(num_channels, "num_channels")
        self.code_shape = check_shape(code_shape, "code_shape (K', H', W')")
        check_count(hidden_channels, "hidden_channels")
        self.layers = nn.Sequential(
            nn.Conv2d(num_channels, hidden_channels, 3, padding=1),
            *(ResidualBlock(hidden_channels, dilation) for dilation in dilations),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, code_shape[0], 1),
        )
        self.size = (code_shape[1], code_shape[2])

    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode class ids (B, H, W) or keypoint channels (B, K, H, W); x may be None."""
        what = f"class ids (B, H, W) or keypoint channels (B, {self.num_channels}, H, W)"
        structure = check_annotation(y, what, x)
        if structure.dim() == 3 and not structure.is_floating_point():
            channels = self._one_hot(structure)
        elif structure.dim() == 4 and structure.shape[1] == self.num_channels:
            channels = self._keypoints(structure)
        else:
            raise ValueError(
                f"expected y to be {what}, got {tuple(structure.shape)} {structure.dtype}"
            )
        return fixed_code(self.layers(channels.to(dtype_of(self))))

    def _one_hot(self, ids: Tensor) -> Tensor:
        check_range(ids, self.num_channels, "class ids")
        # Resized before one-hot, where it is num_channels times smaller.
        resized = F.interpolate(ids[:, None].float(), self.size, mode="nearest-exact")[:, 0]
        classes = torch.arange(self.num_channels, device=ids.device)
        # F.one_hot would read the values again, which fails under transforms of torch.func.
        return (resized.long()[:, None] == classes[:, None, None]).float()

    def _keypoints(self, channels: Tensor) -> Tensor:
        if not channels.is_floating_point():
            check_range(channels, 2, "keypoint channels (a heat map is given as floats)")
            channels = channels.float()
        return F.adaptive_max_pool2d(channels, self.size)

    def extra_repr(self) -> str:
        """Return the number of channels, shapes and what is given."""
        return f"num_channels={self.num_channels}, {super().extra_repr()}"
