"""Train an autoencoder: a convolutional encoder gives a code, and the decoder is a PixelCNN.

The score is log p(x | h(x)), "given code". The code itself costs nothing, so the score is not a
likelihood of x, and is never ranked with one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.runs.config import RunConfig
from pipelines.runs.pipeline import Pipeline
from pipelines.runs.record import ImageSpec
from pipelines.runtime.config import Bounded, Positive
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from pipelines.model import Model


@dataclass(frozen=True)
class EncoderConfig(Bounded):
    """The convolutional encoder."""

    code_dim: Positive = 10
    """Dimensions of the code h."""
    encoder_channels: Positive = 32
    """Features of the encoder at full size, doubled with each halving, up to four times."""


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.autoencoder`."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)


_DIGITS = Config.of(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=3, kernel_size=3,
    first_kernel_size=5, learning_rate=3e-3, lr_decay="cosine", ema=0.99, eval_every=100,
)  # fmt: skip
_MNIST = Config.of(
    data="mnist", epochs=10, batch_size=64, hidden_channels=32, num_layers=5, learning_rate=3e-3,
    warmup_steps=100, lr_decay="cosine", ema=0.998, compile=True, eval_every=1000,
)  # fmt: skip
_PHOTOS = Config.of(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=5,
    code_dim=128, learning_rate=1e-3, warmup_steps=200, lr_decay="cosine", compile=True,
)  # fmt: skip

PRESETS = {
    "digits": _DIGITS,
    "shapes": _DIGITS.but(data="shapes", epochs=5),
    "shapes_color": _DIGITS.but(data="shapes_color", epochs=5),
    **{
        name: _MNIST.but(data=name)
        for name in (
            "mnist", "mnist_color", "binarized_mnist", "fashion_mnist", "kmnist", "emnist",
            "omniglot",
        )
    },
    **{name: _PHOTOS.but(data=name) for name in ("cifar10", "svhn", "celeba", "imagenet32")},
    "imagenet64": _PHOTOS.but(data="imagenet64", batch_size=16),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """Return the model that the flags ask for."""
    from encoders import ConvEncoder  # torch takes seconds to import: flags first
    from pipelines.model import Model
    from pipelines.runs.networks import make_decoder

    if spec.condition != "none":
        raise UserError(
            f"expected --condition none for an autoencoder, got {spec.condition}: "
            "pipelines.pixelcnn is conditioned on annotations"
        )
    encoder = ConvEncoder(
        spec.image_shape,
        num_levels=spec.num_levels,
        code_shape=(config.encoder.code_dim,),
        hidden_channels=config.encoder.encoder_channels,
    )
    return Model(make_decoder(config.decoder, spec, encoder.code_shape), encoder)


PIPELINE = Pipeline(
    "autoencoder",
    Config,
    PRESETS,
    build,
    doc=__doc__ or "",
    examples=(
        "python -m pipelines.autoencoder --data digits",
        "python -m pipelines.autoencoder --data mnist --data-dir ~/data --code-dim 16",
    ),
)

main = PIPELINE.main

if __name__ == "__main__":
    main()
