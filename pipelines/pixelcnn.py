"""Train a PixelCNN: unconditional, or given what each image comes with (--condition label).

The result is exact: the negative log-likelihood of every test image, in nats and bits/dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.model import Model
from pipelines.runs.config import RunConfig
from pipelines.runs.networks import ImageSpec, make_annotation_encoder, make_decoder
from pipelines.runs.pipeline import main


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.pixelcnn`."""

    code_dim: int = 64
    """Features of the code that --condition makes of each annotation."""
    code_dropout: float = 0.0
    """How often to train without the condition, so that the model can also do without it."""


_DIGITS = Config(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=5, kernel_size=3,
    first_kernel_size=5, learning_rate=3e-3, lr_decay="cosine", ema=0.99, dropout=0.1,
    eval_every=100,
)  # fmt: skip
_MNIST = Config(
    data="mnist", epochs=10, batch_size=32, hidden_channels=32, num_layers=8, learning_rate=3e-3,
    weight_decay=0.1, warmup_steps=100, lr_decay="cosine", ema=0.998, compile=True, eval_every=1000,
)  # fmt: skip
_PHOTOS = Config(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=8,
    learning_rate=1e-3, warmup_steps=200, lr_decay="cosine", compile=True,
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
    **{name: replace(_PHOTOS, data=name) for name in ("cifar10", "svhn", "celeba")},
    "imagenet32": replace(_PHOTOS, data="imagenet32"),
    "imagenet64": replace(_PHOTOS, data="imagenet64", batch_size=16),
    # van den Oord et al. 2016b, table 1: 20 layers of 384 maps.
    "paper": replace(
        _PHOTOS, hidden_channels=384, num_layers=20, batch_size=128,
        head_channels=1024, learning_rate=1e-4, steps=200_000, precision="bf16-mixed",
    ),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """The model that the flags ask for."""
    encoder = make_annotation_encoder(spec, config.code_dim)
    cond_shape = () if encoder is None else encoder.code_shape
    return Model(make_decoder(config, spec, cond_shape), encoder, code_dropout=config.code_dropout)


if __name__ == "__main__":
    main("pixelcnn", Config, PRESETS, build)
