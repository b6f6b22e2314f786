"""Encoder interface: a module that turns an image, or its annotation, into a code h."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from encoders.arguments import readable
from encoders.posterior import DeterministicPosterior, Posterior
from encoders.pretrained import Pretrained

# What a data set says about a batch of images; a tuple for a combined encoder.
Annotation = Tensor | tuple[Tensor | None, ...] | None

# Standard normal numbers, one tensor (B, *shape) for each of an encoder's latent_shapes.
Noise = tuple[Tensor, ...]


class Code(NamedTuple):
    """An encoder's output for a batch of B examples; log-probabilities are in nats.

    Attributes:
        h: the conditioning for the decoder, (B, K) or (B, K, H', W'), or None if there is none.
        rate: (B,) float32, KL(q(z|x) || p(z)) summed over levels and dimensions, or an unbiased
            estimate of it at the drawn z; zeros if there is no latent.
        log_weight: (B,) float32, log p(z) - log q(z|x) at the drawn z; zeros if there is no latent.
        kl: per level, top level first, (B, D) nats per dimension; `rate` is their sum.
        z: the drawn latents, top level first: (B, K) vectors or (B, K, H', W') maps.
        auxiliary: (B,), a loss that only training adds, such as the commitment loss of a vector
            quantizer. It is never part of a score. None if there is none.
    """

    h: Tensor | None
    rate: Tensor
    log_weight: Tensor
    kl: tuple[Tensor, ...] = ()
    z: tuple[Tensor, ...] = ()
    auxiliary: Tensor | None = None


class Encoder(Pretrained, ABC):
    """Makes the conditioning h of a decoder, and accounts for the cost of h.

    A new encoder sets `code_shape`, says what h costs, and implements `forward`. Either it has
    latents, whose rate pays for h, and log p(x) is a bound: it sets `has_latents = True` and also
    implements `sample_prior`, `to_h` and `posterior`. Or h is free, and the score says what was
    given: it sets `given`, for instance `given = "label"`. The remaining attributes say what else
    it can do; their defaults suit an encoder of images.

    `draws` is right for every encoder, and faster where an encoder with latents overrides it. An
    encoder that sets `latent_shapes` also takes `noise` in `forward` and `draws`: standard normal
    numbers for each latent level, in place of PyTorch's generator, so that an image's latent does
    not depend on the rest of the batch.

    Attributes:
        code_shape: the shape of one example's h: `()`, `(K,)` or `(K, H', W')`.
        has_latents: whether h comes from latents with a prior, so that h has a rate.
        given: the name of what h is made of at no cost: "label", "map", "caption", "code" (of the
            image itself); "" with latents.
        reads_image: whether an image alone is enough; False if h needs an annotation y.
        latent_shapes: the shape of one example's latents per level, top level first.
        gaussian_latents: whether the posteriors are diagonal Gaussians and the top prior is N(0, I)
            (False for discrete latents). Bits-back coding needs it; interpolations then follow an
            arc.
        num_classes: the number of labels that y may hold, if y is a label; else 0.
        reads_captions: whether y holds the tokens of a caption.
        check_values: whether levels, labels and the like are checked for values out of range. On a
            GPU each check waits for the device; `Encoder.check_values = False` skips it, in all
            encoders, for data known to be right.
    """

    code_shape: tuple[int, ...]
    has_latents: bool = False
    given: str = ""
    reads_image: bool = True
    latent_shapes: tuple[tuple[int, ...], ...] = ()
    gaussian_latents: bool = True
    num_classes: int = 0
    reads_captions: bool = False
    check_values: ClassVar[bool] = True

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """Encoders that this one combines, one for each entry of y; only itself if it is simple."""
        return (self,)

    @abstractmethod
    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode images x (B, C, H, W) of levels (uint8; int64 above 256), or their annotation y.

        Latents are drawn with PyTorch's global random number generator unless noise is given, in
        training and evaluation mode alike. An encoder that reads only y accepts None for x.
        """

    def draws(
        self, x: Tensor, y: Annotation = None, *, num: int, noise: Noise | None = None
    ) -> Code:
        """Return codes of `num` independent draws per image: (B * num, ...), image by image."""
        options = {} if noise is None else {"noise": noise}
        return self(repeat(x, num), repeat(y, num), **options)

    def annotation(
        self,
        num: int,
        y: Annotation = None,
        *,
        label: int | None = None,
        caption: str | None = None,
    ) -> Annotation:
        """Return y for `num` images, with the label or caption in the place of its own.

        An encoder that reads neither returns y as it is.

        Raises:
            ValueError: the label or caption isn't one that this encoder knows.
        """
        return y

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `num` codes h, (num, *code_shape), from the prior of the latents."""
        raise TypeError(
            self._lacks(
                "sample_prior",
                "prior to sample",
                "encode what is given, or use an encoder with latents (GaussianEncoder, "
                "HierarchicalEncoder)",
            )
        )

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        """Turn latents (top level first, as in `Code.z`) into the conditioning h."""
        raise TypeError(
            self._lacks("to_h", "latents to turn into h", "take h from the encoder's output")
        )

    def sample_bottom(self, z2: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the bottom of two latent levels from its prior given the top one."""
        raise TypeError(f"{type(self).__name__} has no two levels of latents")

    def posterior(self, x: Tensor, y: Annotation = None) -> tuple[Posterior, ...]:
        """Return q(z|x) per level, top level first.

        A code of the image that costs nothing has all its mass on the code.
        """
        if self.reads_image and not self.has_latents:
            h = self(x, y).h
            return (DeterministicPosterior(h),)
        raise TypeError(
            self._lacks(
                "posterior",
                "posterior over a code of the image",
                "use an encoder that reads images",
            )
        )

    def _lacks(self, method: str, what: str, cure: str) -> str:
        name = type(self).__name__
        if self.has_latents:
            return f"{name} has latents, but no method {method}: implement it to get a {what}"
        return f"{name} has no {what}: its h is given ({self.given}), so {cure}"

    def extra_repr(self) -> str:
        """Return shapes, and what is given or which latents there are, for `repr`."""
        cost = (
            f"latent_shapes={self.latent_shapes}" if self.has_latents else f"given={self.given!r}"
        )
        return f"code_shape={self.code_shape}, {cost}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def check_cost(encoder: Encoder) -> Encoder:
    """Return the encoder if it either has latents or says what is given, else raise a ValueError.

    A score is a bound in the first case, and conditional on what is given in the second.
    """
    if encoder.has_latents == bool(encoder.given):
        raise ValueError(
            f"expected {type(encoder).__name__} to say what its h costs, got "
            f"has_latents={encoder.has_latents} and given={encoder.given!r}: set has_latents = "
            'True if a rate pays for h, or else given to what h is made of, such as "label" or '
            '"code"'
        )
    return encoder


def fixed_code(h: Tensor, auxiliary: Tensor | None = None) -> Code:
    """Return a code without latents: it costs nothing, so rate and log weight are zeros (B,)."""
    zeros = torch.zeros(h.shape[0], device=h.device)
    return Code(h=h, rate=zeros, log_weight=zeros, auxiliary=auxiliary)


def repeat(y: Any, times: int) -> Any:
    """Repeat each example of a tensor, a tuple of tensors or None, copies next to each other."""
    if isinstance(y, tuple):
        return tuple(repeat(part, times) for part in y)
    return None if y is None else y.repeat_interleave(times, dim=0)


def batch_of(shape: tuple[int | str, ...]) -> str:
    """Format the shape of a batch for an error message: (B, 1, 8, 8)."""
    return "(" + ", ".join(map(str, ("B", *shape))) + ")"


def check_images(
    x: Tensor | None, image_shape: tuple[int, ...] | None = None, num_levels: int = 256
) -> Tensor:
    """Return x if it is a batch of levels (B, *image_shape), else raise a ValueError.

    Levels are uint8 up to 256 of them and int64 above, as in the decoders.
    """
    dtype = torch.uint8 if num_levels <= 256 else torch.int64
    shape = batch_of(image_shape or ("C", "H", "W"))
    if x is None:
        raise ValueError(f"expected {dtype} images {shape}, got none: this encoder reads x")
    if not isinstance(x, Tensor):
        raise TypeError(
            f"expected {dtype} images {shape}, a tensor, got a {type(x).__name__}: convert it "
            "with torch.as_tensor"
        )
    if x.dim() != 4 or (image_shape is not None and tuple(x.shape[1:]) != tuple(image_shape)):
        raise ValueError(f"expected images of shape {shape}, got {tuple(x.shape)}")
    if x.dtype != dtype:
        cure = "; turn floats in [0, 1] into levels with decoders.to_levels"
        raise ValueError(
            f"expected {dtype} levels 0..{num_levels - 1}, got {x.dtype}"
            f"{cure if x.is_floating_point() else ''}"
        )
    # uint8 can't exceed 255, so 256 levels need no check of the values.
    if num_levels != 256 and _looks_at(x):
        low, high = (int(value) for value in x.aminmax())
        if low < 0 or high >= num_levels:
            raise ValueError(
                f"expected levels 0..{num_levels - 1}, got {low if low < 0 else high}: quantize "
                "the images, or build the encoder with more num_levels"
            )
    return x


def check_annotation(y: Annotation, what: str, x: Tensor | None) -> Tensor:
    """Return y if it is one tensor, as long as x where x is given, else raise a ValueError."""
    if not isinstance(y, Tensor):
        got = "none" if y is None else f"a {type(y).__name__}"
        raise ValueError(f"expected y to be {what}, got {got}: pass the data set's annotation")
    if x is not None and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"expected one entry of y per image, got {x.shape[0]} images and {y.shape[0]} entries"
        )
    return y


def _looks_at(values: Tensor) -> bool:
    """Return whether values are checked, as well as shapes."""
    return Encoder.check_values and readable(values) and values.numel() > 0


def check_range(values: Tensor, num: int, what: str) -> None:
    """Raise a ValueError unless all integers are in 0 ... num - 1."""
    if _looks_at(values):
        low, high = (int(value) for value in values.aminmax())
        if low < 0 or high >= num:
            raise ValueError(f"expected {what} 0..{num - 1}, got {low if low < 0 else high}")


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the module's floating-point parameters (float32 if it has none)."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the module's parameters (the CPU if it has none)."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
