"""The model of every run: a decoder and, optionally, the encoder of its conditioning."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from decoders.base import Decoder
from decoders.pretrained import Pretrained
from encoders import Annotation, Encoder, Noise
from encoders.base import check_cost, repeat
from eval import Terms

# The annotation that a model is given: the image's own, another image's, or none.
Condition = Literal["given", "shuffled", "dropped"]


class Model(Pretrained):
    """A decoder and its encoder; every pipeline is a choice of the two.

    ::

        x, y ── encoder ── Code(h, rate) ──────────────┐
                  │                                    ├── Terms(distortion, rate)
                  h ── decoder.log_prob(x, h) ── nats ─┘

    A decoder alone is an unconditional PixelCNN. With a `LabelEmbedding` it is class-conditional,
    with a `ConvEncoder` a PixelCNN autoencoder, and with a `GaussianEncoder` a PixelVAE.

    Args:
        decoder: p(x | h).
        encoder: makes h. Its `code_shape` must be the decoder's `cond_shape`.
        code_dropout: the probability, in training, that an image's h is replaced by zeros, so that
            the model also learns p(x) (see `dropped`). Not for latents, whose rate it would hide.

    Raises:
        TypeError: the arguments aren't a Decoder and an Encoder.
        ValueError: the two shapes differ, latents would be dropped, or the encoder doesn't say
            whether it has latents or what is given.

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
        if not isinstance(_original(decoder), Decoder):
            raise TypeError(
                f"expected a Decoder, got a {type(decoder).__name__}: subclass one of decoders, "
                "usually FactorizedDecoder"
            )
        if encoder is not None and not isinstance(_original(encoder), Encoder):
            raise TypeError(
                f"expected an Encoder, got a {type(encoder).__name__}: wrap your own network, as "
                "in encoders.Deterministic(network, code_shape)"
            )
        if (
            not isinstance(code_dropout, (int, float))
            or not 0 <= code_dropout < 1
            or (code_dropout and (encoder is None or encoder.has_latents))
        ):
            raise ValueError(
                "expected code_dropout from 0 to below 1, and 0 without an encoder or with "
                f"latents, got {code_dropout}"
            )
        code_shape = tuple(check_cost(encoder).code_shape) if encoder is not None else ()
        if code_shape != decoder.cond_shape:
            raise ValueError(
                f"expected a decoder with cond_shape={code_shape}, the shape of the encoder's "
                f"code, got cond_shape={decoder.cond_shape}"
            )
        self.decoder = decoder
        self.encoder = encoder
        self.code_dropout = code_dropout

    @property
    def has_latents(self) -> bool:
        """True if h comes from latents with a prior, so that distortion + rate is a bound."""
        return self.encoder is not None and self.encoder.has_latents

    @property
    def given(self) -> str:
        """Name of what h is made of at no cost, such as "label". "" with latents or without h."""
        return "" if self.encoder is None else self.encoder.given

    @property
    def kind(self) -> str:
        """Kind of number that distortion + rate is: "exact", "bound" or "given ..."."""
        return self.kind_under("given")

    def kind_under(self, condition: Condition) -> str:
        """Return the kind of the score with the image's own, another image's or no annotation.

        >>> from decoders import PixelCNN
        >>> from encoders import LabelEmbedding
        >>> decoder = PixelCNN((1, 8, 8), num_levels=2, cond_shape=(3,), num_layers=1)
        >>> model = Model(decoder, LabelEmbedding(10, 3))
        >>> [model.kind_under(condition) for condition in ("given", "shuffled", "dropped")]
        ['given label', 'given shuffled label', 'exact']
        """
        if self.has_latents:
            return "bound"
        if not self.given or condition == "dropped":
            return "exact"
        return f"given shuffled {self.given}" if condition == "shuffled" else f"given {self.given}"

    @property
    def encodes_images(self) -> bool:
        """True if h is made of the image itself, not of an annotation."""
        return self.encoder is not None and self.encoder.reads_image

    @property
    def num_classes(self) -> int:
        """Number of labels that h can be made of, or 0 if it isn't made of a label alone."""
        return 0 if self.encoder is None else self.encoder.num_classes

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one image's latents per level, top level first."""
        return () if self.encoder is None else self.encoder.latent_shapes

    def forward(self, x: Tensor, y: Annotation = None, *, noise: Noise | None = None) -> Terms:
        """Return the terms of the negative log-likelihood, in nats per image.

        Args:
            x: (B, C, H, W) levels.
            y: the annotation, if the encoder reads one.
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
        distortion = -self.decoder(x, h)
        return Terms(distortion, code.rate, code.log_weight, code.kl, code.auxiliary)

    def draws(self, x: Tensor, y: Annotation, num: int, *, noise: Noise | None = None) -> Terms:
        """Return the terms of `num` independent draws of each image's latents, image by image.

        There are B * num, the same as for repeated images, but each image is encoded once.
        """
        if self.encoder is None:
            return self(repeat(x, num), repeat(y, num))
        code = self.encoder.draws(x, y, num=num, **({} if noise is None else {"noise": noise}))
        return Terms(-self.decoder(repeat(x, num), code.h), code.rate, code.log_weight, code.kl)

    def dropped(self, x: Tensor, y: Annotation = None) -> Terms:
        """Return the terms with h dropped, for any y: exact p(x), trained with `code_dropout`."""
        if not self.code_dropout:
            raise ValueError(
                "expected a model trained with code_dropout: without it, the decoder's score of a "
                "dropped code has no meaning"
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
        """Draw images (num, C, H, W), given codes from the prior or those of y.

        Args:
            num: the number of images.
            y: `num` labels, maps or captions, for an encoder that reads them.
            generator: makes codes and noise reproducible.
            options: as for `Decoder.sample` (temperature, noise, known, progress).

        Raises:
            TypeError: the encoder has no prior, and y is None.
        """
        return self.decoder.sample(
            self.prior_code(num, y, generator=generator), num=num, generator=generator, **options
        )

    @torch.no_grad()
    def prior_code(
        self, num: int, y: Annotation = None, *, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Return codes h to draw images from: from the prior, of y, or None without an encoder."""
        if self.encoder is None:
            return None
        if self.has_latents or y is None:
            return self.encoder.sample_prior(num, generator)
        return self.encoder(None, y).h

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Annotation = None, **options: Any) -> Tensor:
        """Draw an image (C, H, W) given the code of each of the images (B, C, H, W).

        Raises:
            TypeError: there is no encoder.
        """
        if self.encoder is None:
            raise TypeError("a model without an encoder has no code to reconstruct an image from")
        return self.decoder.sample(self.encoder(x, y).h, **options)


def _original(module: Any) -> Any:
    """Return the module that `torch.compile` was given, or the module itself."""
    return getattr(module, "_orig_mod", module)
