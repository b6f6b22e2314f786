"""What every encoder is: a module that turns an image, or what is known of it, into a code h."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from encoders.arguments import readable

# What a data set says of a batch of images; a tuple for a combined encoder.
Annotation = Tensor | tuple[Tensor | None, ...] | None

# Standard normal numbers, one tensor (B, *shape) for each of an encoder's latent_shapes.
Noise = tuple[Tensor, ...]


class Code(NamedTuple):
    """What an encoder says about a batch of B examples; the log-probabilities are in nats.

    Attributes:
        h: the conditioning for the decoder, (B, K) or (B, K, H', W'), or None if there is none.
        rate: (B,) float32, KL(q(z|x) || p(z)) summed over levels and dimensions, or an unbiased
            estimate of it at the drawn z; zeros if there is no latent.
        log_weight: (B,) float32, log p(z) - log q(z|x) at the drawn z; zeros if there is no latent.
        kl: per level, top level first, (B, D) nats per dimension; `rate` is their sum.
        z: the drawn latents, top level first: (B, K) vectors or (B, K, H', W') maps.
    """

    h: Tensor | None
    rate: Tensor
    log_weight: Tensor
    kl: tuple[Tensor, ...] = ()
    z: tuple[Tensor, ...] = ()


class Encoder(nn.Module, ABC):
    """Makes the conditioning h of a decoder, and accounts for what h costs.

    A new encoder sets `code_shape` and `kind` and implements `forward`. One with latents also
    implements `sample_prior`, `to_h` and `posterior`; elsewhere these raise a TypeError, but that
    the posterior of a "given code" is the code. `draws` is right for all, and faster where an
    encoder with latents overrides it. An encoder that sets `latent_shapes` also takes
    `noise` in `forward` and `draws`: standard normal numbers for each latent level, in place of
    PyTorch's generator, so that what a latent is does not depend on the rest of the batch.

    Attributes:
        code_shape: the shape of one example's h: `()`, `(K,)` or `(K, H', W')`.
        kind: what log p(x) under this encoder is: "bound" where there are latents, else what is
            given: "given label", "given code", "given map", "given caption".
        latent_shapes: the shape of one example's latents per level, top level first.
        check_values: whether levels, labels and the like are looked at for any out of range. On a
            GPU that waits for it at each call; `Encoder.check_values = False` spares it, for all
            encoders and data known to be right.
    """

    code_shape: tuple[int, ...]
    kind: str
    check_values: ClassVar[bool] = True
    latent_shapes: tuple[tuple[int, ...], ...] = ()

    @abstractmethod
    def forward(self, x: Tensor | None, y: Annotation = None) -> Code:
        """Encode images x (B, C, H, W) of levels (uint8; int64 above 256), or their annotation y.

        Latents are drawn with PyTorch's global random number generator unless noise is given, in
        training and evaluation mode alike. An encoder that reads y only accepts None for x.
        """

    def draws(
        self, x: Tensor, y: Annotation = None, *, num: int, noise: Noise | None = None
    ) -> Code:
        """Codes of `num` independent draws for each of B images: (B · num, …), image by image."""
        options = {} if noise is None else {"noise": noise}
        return self(repeat(x, num), repeat(y, num), **options)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `num` codes h, (num, *code_shape), from the prior of the latents."""
        raise TypeError(
            f"{type(self).__name__} has no prior to sample: its h is {self.kind}, so encode what "
            "is given, or use an encoder with latents (GaussianEncoder, HierarchicalEncoder)"
        )

    def to_h(self, z: tuple[Tensor, ...]) -> Tensor:
        """Turn latents (top level first, as in `Code.z`) into the conditioning h."""
        raise TypeError(
            f"{type(self).__name__} has no latents to turn into h: its h is {self.kind}, so take "
            "h from the encoder's output"
        )

    def posterior(self, x: Tensor, y: Annotation = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation of q(z|x) per level, top level first.

        All mass of a "given code" is on the code: ((h, zeros),).
        """
        if self.kind == "given code":
            h = self(x, y).h
            return ((h, torch.zeros_like(h)),)
        raise TypeError(
            f"{type(self).__name__} has no posterior over a code of the image: its h is {self.kind}"
        )


def fixed_code(h: Tensor) -> Code:
    """A code without latents: it costs nothing, so its rate and log weight are zeros (B,)."""
    zeros = torch.zeros(h.shape[0], device=h.device)
    return Code(h=h, rate=zeros, log_weight=zeros)


def repeat(y: Any, times: int) -> Any:
    """Each example of a tensor, of a tuple of them or of none, several times in a row."""
    if isinstance(y, tuple):
        return tuple(repeat(part, times) for part in y)
    return None if y is None else y.repeat_interleave(times, dim=0)


def batch_of(shape: tuple[int | str, ...]) -> str:
    """A shape as error messages write it: (B, 1, 8, 8)."""
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
            f"expected {dtype} images {shape}, a tensor, got a {type(x).__name__}: convert it by "
            "torch.as_tensor"
        )
    if x.dim() != 4 or (image_shape is not None and tuple(x.shape[1:]) != tuple(image_shape)):
        raise ValueError(f"expected images of shape {shape}, got {tuple(x.shape)}")
    if x.dtype != dtype:
        cure = "; turn floats in [0, 1] into levels with decoders.to_levels"
        raise ValueError(
            f"expected {dtype} levels 0..{num_levels - 1}, got {x.dtype}"
            f"{cure if x.is_floating_point() else ''}"
        )
    # uint8 can't pass 255, so the full range needs no look at the values.
    if num_levels != 256 and _looks_at(x):
        low, high = (int(value) for value in x.aminmax())
        if low < 0 or high >= num_levels:
            raise ValueError(
                f"expected levels 0..{num_levels - 1}, got {low if low < 0 else high}: quantise "
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
    """Whether values are checked, not only shapes."""
    return Encoder.check_values and readable(values) and values.numel() > 0


def check_range(values: Tensor, num: int, what: str) -> None:
    """Raise a ValueError unless the integers lie in 0 ... num - 1."""
    if _looks_at(values):
        low, high = (int(value) for value in values.aminmax())
        if low < 0 or high >= num:
            raise ValueError(f"expected {what} 0..{num - 1}, got {low if low < 0 else high}")


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of the module's floating-point parameters (float32 if it has none)."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's parameters (the CPU if it has none)."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def standard_normal(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Float32 draws from N(0, 1) on `device`, made where the generator lives."""
    where = device if generator is None else generator.device
    return torch.randn(shape, device=where, dtype=torch.float32, generator=generator).to(device)
