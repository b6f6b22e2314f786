"""Encoder of a caption: a convolutional and recurrent network over its characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.arguments import check_count
from encoders.base import Annotation, Code, Encoder, check_annotation, check_range, fixed_code

# The printable ASCII characters; the token of ALPHABET[i] is i + 1, as 0 is padding.
ALPHABET = "".join(map(chr, range(32, 127)))
_TOKENS = {character: token for token, character in enumerate(ALPHABET, start=1)}


def tokenize(captions: Sequence[str], length: int | None = None) -> np.ndarray:
    """Turn N captions into tokens (N, T), uint8, each padded with zeros at the end.

    Args:
        captions: texts made of the characters in `ALPHABET`.
        length: T; None for the length of the longest caption.

    Raises:
        TypeError: captions is a single text.
        ValueError: a character outside the alphabet, or a caption longer than `length`.

    >>> tokenize(["ab", "c"])
    array([[66, 67],
           [68,  0]], dtype=uint8)
    """
    if isinstance(captions, str):
        raise TypeError("expected a sequence of captions, got one text: put it in a list")
    longest = max(map(len, captions), default=0)
    tokens = np.zeros((len(captions), max(longest, 1) if length is None else length), np.uint8)
    for row, caption in zip(tokens, captions, strict=True):
        if len(caption) > len(row):
            raise ValueError(
                f"expected captions of at most {len(row)} characters, got {len(caption)} in "
                f"{caption!r}: shorten it, or raise length"
            )
        for position, character in enumerate(caption):
            if character not in _TOKENS:
                raise ValueError(
                    f"expected printable ASCII characters (encoders.ALPHABET), got {character!r} "
                    f"in the caption {caption!r}"
                )
            row[position] = _TOKENS[character]
    return tokens


class TextEncoder(Encoder):
    """h is a vector computed from a caption, character by character, trained with the decoder.

    tokens (B, T) -> embedding -> [convolution -> ReLU -> max-pooling] x 2 -> GRU -> mean -> linear

    Padding changes nothing: a caption's h does not depend on the longest caption of its batch.

    Args:
        dim: K, the dimensions of h.
        embedding_dim: width of the embedding of characters.
        hidden_channels: width of the convolutions and of the GRU.

    Raises:
        ValueError: y is missing, isn't a batch of integers (B, T), or holds an unknown token.

    Source: S. Reed et al., "Generating Interpretable Images with Controllable Structure", 2016,
    https://openreview.net/forum?id=Hyvw0L9el; the network: S. Reed et al., "Learning Deep
    Representations of Fine-Grained Visual Descriptions", 2016, https://arxiv.org/abs/1605.05395.

    >>> import torch
    >>> tokens = torch.from_numpy(tokenize(["a red square", "a blue circle"]))
    >>> TextEncoder(16)(None, tokens).h.shape
    torch.Size([2, 16])
    """

    given = "caption"
    reads_image = False
    reads_captions = True

    def __init__(self, dim: int, *, embedding_dim: int = 32, hidden_channels: int = 64):
        super().__init__()
        self.code_shape = (check_count(dim, "dim"),)
        check_count(embedding_dim, "embedding_dim")
        check_count(hidden_channels, "hidden_channels")
        self.embedding = nn.Embedding(len(ALPHABET) + 1, embedding_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(embedding_dim, hidden_channels, 5, padding=2),
                nn.Conv1d(hidden_channels, hidden_channels, 3, padding=1),
            ]
        )
        self.recurrent = nn.GRU(hidden_channels, hidden_channels, batch_first=True)
        self.head = nn.Linear(hidden_channels, dim)

    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode tokens y (B, T), see `tokenize`; x may be None, and only its length is used."""
        tokens = check_annotation(y, "caption tokens (B, T)", x)
        if tokens.dim() != 2 or tokens.is_floating_point() or tokens.shape[1] == 0:
            raise ValueError(
                f"expected y to be integer caption tokens (B, T), got {tuple(tokens.shape)} "
                f"{tokens.dtype}: make them with encoders.tokenize"
            )
        tokens = tokens.long()
        check_range(tokens, len(ALPHABET) + 1, "tokens of encoders.tokenize")
        features = self.embedding(tokens).transpose(1, 2)  # (B, E, T)
        present = (tokens != 0).to(features.dtype)[:, None]  # (B, 1, T)
        for convolution in self.convolutions:
            # Masked each time, since a bias would make padding visible to the next convolution.
            features = F.relu(convolution(features)) * present
            features = F.max_pool1d(features, 2, ceil_mode=True)
            present = F.max_pool1d(present, 2, ceil_mode=True)
        states = self.recurrent(features.transpose(1, 2))[0].transpose(1, 2)
        mean = (states * present).sum(2) / present.sum(2).clamp(min=1)
        return fixed_code(self.head(mean))

    def annotation(
        self,
        num: int,
        y: Annotation = None,
        *,
        label: int | None = None,
        caption: str | None = None,
    ) -> Annotation:
        """Return the tokens of the caption (num, T), or y if there is none."""
        if caption is None:
            return y
        if not caption.strip():
            raise ValueError("expected a caption that says something, got none")
        return torch.from_numpy(tokenize([caption])).expand(num, -1)
