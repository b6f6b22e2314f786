"""Train a PixelCNN: unconditional, or given an annotation of each image (--condition label).

The result is exact: the negative log-likelihood of every test image, in nats and bits/dim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.runs.config import RunConfig
from pipelines.runs.pipeline import Pipeline
from pipelines.runs.record import ImageSpec
from pipelines.runtime.config import Bounded, Fraction, Positive

if TYPE_CHECKING:
    from pipelines.model import Model


@dataclass(frozen=True)
class ConditionConfig(Bounded):
    """The encoder of the annotations that --condition names."""

    code_dim: Positive = 64
    """Features of the code of an annotation (--condition)."""
    code_dropout: Fraction = 0.0
    """Probability of training an image without its annotation, to learn p(x) as well."""


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.pixelcnn`."""

    encoder: ConditionConfig = field(default_factory=ConditionConfig)

    def unused(self) -> dict[str, str]:
        """Return the flags without an effect in this configuration, and why."""
        names = ("code_dim", "code_dropout") if self.data.condition == "none" else ()
        return {**super().unused(), **dict.fromkeys(names, "without --condition")}


_DIGITS = Config.of(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=5, kernel_size=3,
    first_kernel_size=5, learning_rate=3e-3, lr_decay="cosine", ema=0.99, dropout=0.1,
    eval_every=100,
)  # fmt: skip
_MNIST = Config.of(
    data="mnist", epochs=10, batch_size=32, hidden_channels=32, num_layers=8, learning_rate=3e-3,
    weight_decay=0.1, warmup_steps=100, lr_decay="cosine", ema=0.998, compile=True, eval_every=1000,
)  # fmt: skip
_PHOTOS = Config.of(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=8,
    learning_rate=1e-3, warmup_steps=200, lr_decay="cosine", compile=True,
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
    **{name: _PHOTOS.but(data=name) for name in ("cifar10", "svhn", "celeba")},
    "imagenet32": _PHOTOS.but(data="imagenet32"),
    "imagenet64": _PHOTOS.but(data="imagenet64", batch_size=16),
    # van den Oord et al. 2016b, table 1: 20 layers of 384 maps.
    "paper": _PHOTOS.but(
        hidden_channels=384, num_layers=20, batch_size=128,
        head_channels=1024, learning_rate=1e-4, steps=200_000, precision="bf16-mixed",
    ),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """Return the model that the flags ask for."""
    from pipelines.model import Model  # torch takes seconds to import: flags first
    from pipelines.runs.networks import make_annotation_encoder, make_decoder

    encoder = make_annotation_encoder(spec, config.encoder.code_dim)
    cond_shape = () if encoder is None else encoder.code_shape
    decoder = make_decoder(config.decoder, spec, cond_shape)
    return Model(decoder, encoder, code_dropout=config.encoder.code_dropout)


PIPELINE = Pipeline(
    "pixelcnn",
    Config,
    PRESETS,
    build,
    doc=__doc__ or "",
    examples=(
        "python -m pipelines.pixelcnn --data digits",
        "python -m pipelines.pixelcnn --data mnist --data-dir ~/data --condition label",
    ),
)

main = PIPELINE.main

if __name__ == "__main__":
    main()
