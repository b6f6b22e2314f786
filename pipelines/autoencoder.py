"""Train an autoencoder: a convolutional encoder gives a code, and the decoder is a PixelCNN.

What is reported is log p(x | h(x)), "given code": the code itself is free, so this is no likelihood
of x, and is never ranked beside one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from encoders import ConvEncoder
from pipelines.model import Model
from pipelines.runs.config import RunConfig
from pipelines.runs.networks import ImageSpec, make_decoder
from pipelines.runs.pipeline import main
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.autoencoder`."""

    code_dim: int = 10
    """Numbers in the code h."""
    encoder_channels: int = 32
    """Features of the encoder at full size; doubled with each halving, up to four times."""


_DIGITS = Config(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=3, kernel_size=3,
    first_kernel_size=5, learning_rate=3e-3, lr_decay="cosine", ema=0.99, eval_every=100,
)  # fmt: skip
_MNIST = Config(
    data="mnist", epochs=10, batch_size=64, hidden_channels=32, num_layers=5, learning_rate=3e-3,
    warmup_steps=100, lr_decay="cosine", ema=0.998, compile=True, eval_every=1000,
)  # fmt: skip
_PHOTOS = Config(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=5,
    code_dim=128, learning_rate=1e-3, warmup_steps=200, lr_decay="cosine", compile=True,
)  # fmt: skip

PRESETS = {
    "digits": _DIGITS,
    "shapes": replace(_DIGITS, data="shapes", epochs=5),
    "shapes_color": replace(_DIGITS, data="shapes_color", epochs=5),
    **{
        name: replace(_MNIST, data=name)
        for name in (
            "mnist", "mnist_color", "binarized_mnist", "fashion_mnist", "kmnist", "emnist",
            "omniglot",
        )
    },
    **{name: replace(_PHOTOS, data=name) for name in ("cifar10", "svhn", "celeba", "imagenet32")},
    "imagenet64": replace(_PHOTOS, data="imagenet64", batch_size=16),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """The model that the flags ask for."""
    if config.condition != "none":
        raise UserError(
            f"expected --condition none for an autoencoder, got {config.condition}: "
            "pipelines.pixelcnn is conditioned on annotations"
        )
    encoder = ConvEncoder(
        spec.image_shape,
        num_levels=spec.num_levels,
        code_shape=(config.code_dim,),
        hidden_channels=config.encoder_channels,
    )
    return Model(make_decoder(config, spec, encoder.code_shape), encoder)


if __name__ == "__main__":
    main("autoencoder", Config, PRESETS, build)
