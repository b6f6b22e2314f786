"""Encoder of a class label: one learned vector per class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.arguments import check_count
from encoders.base import Annotation, Code, Encoder, check_annotation, check_range, fixed_code


class LabelEmbedding(Encoder):
    """h is a learned vector for each class, so that the decoder models p(x | label).

    Args:
        num_classes: the number of labels, 0 ... num_classes - 1.
        dim: K, the dimensions of h.

    Raises:
        ValueError: y is missing, isn't a batch of integers (B,), or holds a label out of range.

    Source: the class-conditional model of A. van den Oord et al., "Conditional Image Generation
    with PixelCNN Decoders", 2016, https://arxiv.org/abs/1606.05328.

    >>> LabelEmbedding(10, 16)(None, torch.tensor([3, 7])).h.shape
    torch.Size([2, 16])
    """

    given = "label"
    reads_image = False

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.num_classes = check_count(num_classes, "num_classes")
        self.code_shape = (check_count(dim, "dim"),)
        self.embedding = nn.Embedding(num_classes, dim)

    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode labels y (B,); x may be None, and only its length is used."""
        labels = check_annotation(y, "labels (B,)", x)
        if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"expected y to be integer labels (B,), got {tuple(labels.shape)} {labels.dtype}"
            )
        check_range(labels, self.num_classes, "labels")
        return fixed_code(self.embedding(labels.long()))

    def annotation(
        self,
        num: int,
        y: Annotation = None,
        *,
        label: int | None = None,
        caption: str | None = None,
    ) -> Annotation:
        """Return (num,) of the label, or y if there is none."""
        if label is None:
            return y
        if not 0 <= label < self.num_classes:
            raise ValueError(f"expected a label 0..{self.num_classes - 1}, got {label}")
        return torch.full((num,), label)

    def extra_repr(self) -> str:
        """Return the number of classes, shapes and what is given."""
        return f"num_classes={self.num_classes}, {super().extra_repr()}"
