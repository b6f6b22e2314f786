"""Several encoders combined into one: a caption and a map, a label and keypoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.base import Annotation, Code, Encoder, check_cost, fixed_code


class Joint(Encoder):
    """One code made of several: h is their concatenation over channels.

    Vectors give a vector. If any code is a map, the result is a map, and each vector is repeated
    at every position. The encoders must have no latents.

    Args:
        encoders: two or more; y is then a tuple with one entry each (None for one that reads x).

    Raises:
        ValueError: fewer than two encoders, one with latents or without a code, or maps of
            different sizes; y isn't a tuple of one entry per encoder.

    Source: S. Reed et al., "Generating Interpretable Images with Controllable Structure", 2016,
    https://openreview.net/forum?id=Hyvw0L9el (a caption tiled over the map of structure).

    >>> from encoders import LabelEmbedding, MapEncoder
    >>> joint = Joint(LabelEmbedding(3, 4), MapEncoder(2, (6, 8, 8)))
    >>> joint.code_shape, joint.given
    ((10, 8, 8), 'label and map')
    """

    def __init__(self, *encoders: Encoder):
        super().__init__()
        if len(encoders) < 2:
            raise ValueError(f"expected two or more encoders to join, got {len(encoders)}")
        for encoder in encoders:
            if not isinstance(encoder, Encoder):
                raise TypeError(
                    f"expected encoders to join, got a {type(encoder).__name__}: wrap your own "
                    "network in encoders.Deterministic"
                )
            if check_cost(encoder).has_latents or not encoder.code_shape:
                raise ValueError(
                    f"expected encoders that give a code without latents, got a {encoder}"
                )
        sizes = {encoder.code_shape[1:] for encoder in encoders if len(encoder.code_shape) == 3}
        if len(sizes) > 1:
            raise ValueError(f"expected maps of one size to join, got {sorted(sizes)}")
        self.encoders = nn.ModuleList(encoders)
        self.size: tuple[int, ...] = sizes.pop() if sizes else ()
        self.code_shape = (sum(encoder.code_shape[0] for encoder in encoders), *self.size)
        self.given = " and ".join(encoder.given for encoder in encoders)
        self.reads_image = all(encoder.reads_image for encoder in encoders)

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """Encoders that are combined."""
        return tuple(self.encoders)  # pyright: ignore[reportReturnType]

    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode each entry of y with its encoder, and concatenate the codes."""
        if not isinstance(y, tuple) or len(y) != len(self.encoders):
            got = f"a tuple of {len(y)}" if isinstance(y, tuple) else f"a {type(y).__name__}"
            raise ValueError(
                f"expected y to be a tuple of {len(self.encoders)} entries, one per encoder, "
                f"got {got}"
            )
        codes: list[Code] = [
            encoder(x, entry) for encoder, entry in zip(self.encoders, y, strict=True)
        ]
        parts = [self._sized(code.h) for code in codes if code.h is not None]
        losses = [code.auxiliary for code in codes if code.auxiliary is not None]
        auxiliary = torch.stack(losses).sum(0) if losses else None
        return fixed_code(torch.cat(parts, dim=1), auxiliary)

    def _sized(self, h: Tensor) -> Tensor:
        if h.dim() == 4 or not self.size:
            return h
        return h[:, :, None, None].expand(-1, -1, *self.size)

    def annotation(
        self,
        num: int,
        y: Annotation = None,
        *,
        label: int | None = None,
        caption: str | None = None,
    ) -> Annotation:
        """Return y with the label or caption in the place of the entries that they belong to."""
        entries = y if isinstance(y, tuple) else (None,) * len(self.parts)
        return tuple(
            part.annotation(num, entry, label=label, caption=caption)  # pyright: ignore
            for part, entry in zip(self.parts, entries, strict=True)
        )

    def extra_repr(self) -> str:
        """Return the encoders that are combined, and what they give together."""
        return f"{', '.join(map(repr, self.parts))}, {super().extra_repr()}"
