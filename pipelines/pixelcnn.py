"""Train a PixelCNN: unconditional, or given what each image comes with (--condition label).

The result is exact: the negative log-likelihood of every test image, in nats and bits/dim.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.model import Model
from pipelines.networks import ImageSpec, make_annotation_encoder, make_decoder
from pipelines.run import RunConfig, main


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.pixelcnn`."""

    code_dim: int = 64
    """Features of the code that --condition makes of each annotation."""
    code_dropout: float = 0.0
    """How often to train without the condition, so that the model can also do without it."""


PRESETS = {
    "digits": Config(
        data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=5, kernel_size=3,
        first_kernel_size=5, learning_rate=3e-3, lr_decay="cosine", ema=0.99, dropout=0.1,
    ),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """The model that the flags ask for."""
    encoder = make_annotation_encoder(spec, config.code_dim)
    cond_shape = () if encoder is None else encoder.code_shape
    return Model(make_decoder(config, spec, cond_shape), encoder, code_dropout=config.code_dropout)


if __name__ == "__main__":
    main("pixelcnn", Config, PRESETS, build)
