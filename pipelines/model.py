"""Model: a decoder and, if there is one, the encoder that makes its conditioning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from decoders.base import Decoder
from encoders.base import Annotation, Encoder, Noise, repeat
from eval import Terms


class Model(nn.Module):
    """The only composite: every pipeline is a choice of its two arguments.

    ::

        x, y ── encoder ── Code(h, rate) ──────────────┐
                  │                                    ├── Terms(distortion, rate)
                  h ── decoder.log_prob(x, h) ── nats ─┘

    A decoder alone is an unconditional PixelCNN; with a `LabelEmbedding` a class-conditional one;
    with a `ConvEncoder` a PixelCNN autoencoder; with a `GaussianEncoder` a PixelVAE.

    Args:
        decoder: p(x | h).
        encoder: what makes h; its `code_shape` must be the decoder's `cond_shape`.
        code_dropout: how often, in training, an image's h is replaced by zeros, so that the model
            also learns p(x), given nothing (see `dropped`). Not for latents, whose cost it hides.

    Raises:
        ValueError: the two shapes differ, or latents would be dropped.

    >>> from decoders import GatedPixelCNN
    >>> from encoders import GaussianEncoder
    >>> encoder = GaussianEncoder((1, 8, 8), 4, num_levels=17)
    >>> decoder = GatedPixelCNN((1, 8, 8), num_levels=17, cond_shape=(4,), num_layers=2)
    >>> terms = Model(decoder, encoder)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    >>> terms.distortion.shape, terms.rate.shape
    (torch.Size([2]), torch.Size([2]))
    """

    def __init__(
        self, decoder: Decoder, encoder: Encoder | None = None, *, code_dropout: float = 0.0
    ):
        super().__init__()
        if not isinstance(decoder, Decoder):
            raise TypeError(
                f"expected a Decoder, got a {type(decoder).__name__}: subclass one of decoders, "
                "FactorizedDecoder most often"
            )
        if encoder is not None and not isinstance(encoder, Encoder):
            raise TypeError(
                f"expected an Encoder, got a {type(encoder).__name__}: wrap your own network, as "
                "in encoders.Deterministic(network, code_shape)"
            )
        if (
            not isinstance(code_dropout, (int, float))
            or not 0 <= code_dropout < 1
            or (code_dropout and (encoder is None or encoder.kind == "bound"))
        ):
            raise ValueError(
                "expected code_dropout from 0 to below 1, and 0 without an encoder or with "
                f"latents, got {code_dropout}"
            )
        code_shape = tuple(encoder.code_shape) if encoder is not None else ()
        if code_shape != decoder.cond_shape:
            raise ValueError(
                f"expected a decoder with cond_shape={code_shape}, the shape of the encoder's "
                f"code, got cond_shape={decoder.cond_shape}"
            )
        self.decoder = decoder
        self.encoder = encoder
        self.code_dropout = code_dropout

    @property
    def kind(self) -> str:
        """What distortion + rate is: "exact", "bound", or "given label" and the like."""
        return "exact" if self.encoder is None else self.encoder.kind

    @property
    def encodes_images(self) -> bool:
        """Whether h is made from the image itself, and not from what is said of it."""
        return self.kind in ("bound", "given code")

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one image's latents per level, top level first; () without latents."""
        return () if self.encoder is None else self.encoder.latent_shapes

    def forward(self, x: Tensor, y: Annotation = None, *, noise: Noise | None = None) -> Terms:
        """The terms of the negative log-likelihood, in nats for each image.

        Args:
            x: (B, C, H, W) levels.
            y: what the encoder reads beside x, or in place of it.
            noise: standard normal numbers for each of the encoder's `latent_shapes`, in place of
                PyTorch's generator.
        """
        if self.encoder is None:
            zeros = torch.zeros(x.shape[0], device=x.device)
            return Terms(-self.decoder(x), zeros, zeros)
        code = self.encoder(x, y, **({} if noise is None else {"noise": noise}))
        h = code.h
        if self.training and self.code_dropout:
            kept = torch.rand(x.shape[0], device=x.device) >= self.code_dropout
            h = h * kept.view(-1, *[1] * (h.dim() - 1))
        return Terms(-self.decoder(x, h), code.rate, code.log_weight, code.kl)

    def draws(self, x: Tensor, y: Annotation, num: int, *, noise: Noise | None = None) -> Terms:
        """The terms of `num` independent draws of each image's latents: (B · num,), image by image.

        The same as of repeated images, but each is encoded once.
        """
        if self.encoder is None:
            return self(repeat(x, num), repeat(y, num))
        code = self.encoder.draws(x, y, num=num, **({} if noise is None else {"noise": noise}))
        return Terms(-self.decoder(repeat(x, num), code.h), code.rate, code.log_weight, code.kl)

    def dropped(self, x: Tensor, y: Annotation = None) -> Terms:
        """The terms with h dropped, whatever y: after training with `code_dropout`, exact p(x)."""
        if not self.code_dropout:
            raise ValueError(
                "expected a model trained with code_dropout: without it, what the decoder makes of "
                "a dropped code says nothing"
            )
        zeros = torch.zeros(x.shape[0], device=x.device)
        h = torch.zeros(x.shape[0], *self.decoder.cond_shape, device=x.device)
        return Terms(-self.decoder(x, h), zeros, zeros)

    @torch.no_grad()
    def sample(
        self,
        num: int,
        y: Annotation = None,
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw images (num, C, H, W): codes from the prior, or those of y, then the decoder.

        Args:
            num: how many.
            y: `num` labels, maps or captions, for an encoder that reads them.
            generator: makes codes and noise reproducible.
            options: as for `Decoder.sample` (temperature, noise, known, progress).

        Raises:
            TypeError: the encoder has neither a prior nor, here, anything to read.
        """
        return self.decoder.sample(
            self.prior_code(num, y, generator=generator), num=num, generator=generator, **options
        )

    @torch.no_grad()
    def prior_code(
        self, num: int, y: Annotation = None, *, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Codes h to draw images from: of y, of the prior, or None for an unconditional model."""
        if self.encoder is None:
            return None
        if self.kind == "bound" or y is None:
            return self.encoder.sample_prior(num, generator)
        return self.encoder(None, y).h

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Annotation = None, **options: Any) -> Tensor:
        """Draw an image from the code of each image: (B, C, H, W) to the same.

        Raises:
            TypeError: there is no encoder, so no code.
        """
        if self.encoder is None:
            raise TypeError("a model without an encoder has no code to reconstruct an image from")
        return self.decoder.sample(self.encoder(x, y).h, **options)
