"""Train a PixelVAE: a variational autoencoder whose decoder is a PixelCNN.

The result is a bound on the negative log-likelihood of every test image, the ELBO at full weight
whatever was minimised in training, split into rate and distortion, and beside it the tighter
importance-weighted estimate.

Source: Gulrajani et al.: PixelVAE: A Latent Variable Model for Natural Images (2016),
https://arxiv.org/abs/1611.05013
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from decoders import DiagonalGaussian, GatedPixelCNN
from encoders import GaussianEncoder, HierarchicalEncoder, Upsample
from encoders.base import Encoder
from pipelines.model import Model
from pipelines.runs.config import RunConfig
from pipelines.runs.networks import ImageSpec, make_decoder
from pipelines.runs.pipeline import main
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.pixelvae`."""

    latent_dim: int = 16
    """Dimensions of the (top) latent vector."""
    latent_to: Literal["layers", "map"] = "layers"
    """How a single latent reaches the decoder: as a bias in each layer, or upsampled to a map
    (deconvolutions upsample by themselves, and take it as it is)."""
    map_channels: int = 16
    """Channels of that map, or of the one that the lower of two levels is upsampled to."""
    levels_of_latents: Literal[1, 2] = 1
    """One latent vector; or two levels, a vector above a map that has a PixelCNN prior."""
    latent_map: tuple[int, int, int] = (16, 8, 8)
    """Channels, height and width of the lower of two levels."""
    prior_channels: int = 32
    """Features of the PixelCNN prior over the lower level."""
    prior_layers: int = 3
    """Layers of that prior."""
    encoder_channels: int = 32
    """Features of the encoder at full size; doubled with each halving, up to four times."""
    encoder_blocks: int = 1
    """Residual blocks of the encoder at each size."""
    posterior_scale: Literal["exp", "softsign"] = "exp"
    """The posterior's standard deviation: exp(s), or (softsign(s) + 1) / 2, which stays below 1."""


_DIGITS = Config(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=3, kernel_size=3,
    first_kernel_size=3, learning_rate=3e-3, lr_decay="cosine", ema=0.99, latent_dim=8,
    kl_warmup=300, eval_every=100,
)  # fmt: skip
_MNIST = Config(
    data="mnist", epochs=10, batch_size=64, hidden_channels=32, num_layers=5, learning_rate=3e-3,
    warmup_steps=100, lr_decay="cosine", ema=0.998, latent_dim=16, kl_warmup=1000,
    importance_samples=10, compile=True, eval_every=1000,
)  # fmt: skip
_CIFAR = Config(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=5,
    latent_dim=64, latent_to="map", learning_rate=1e-3, warmup_steps=200, lr_decay="cosine",
    kl_warmup=1000, importance_samples=10, compile=True,
)  # fmt: skip
# Two levels, after the authors' 64×64 model, at a size that a CPU can try.
_SMALL = Config(
    data="imagenet64", epochs=10, batch_size=16, hidden_channels=64, num_layers=4, kernel_size=3,
    first_kernel_size=5, embedding_dim=4, levels_of_latents=2, latent_dim=128,
    latent_map=(16, 16, 16), prior_channels=64, prior_layers=3, encoder_channels=32,
    posterior_scale="softsign", learning_rate=1e-3, warmup_steps=20, lr_decay="cosine",
    kl_warmup=1000, kl_warmup_top=10000, importance_samples=4, num_samples=36, score_batch=16,
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
    **{name: replace(_CIFAR, data=name) for name in ("cifar10", "svhn", "celeba", "imagenet32")},
    "imagenet64": _SMALL,
    "small": _SMALL,
    # The sizes of `64px_big` in the authors' code, https://github.com/igul222/PixelVAE.
    "big": replace(
        _SMALL, hidden_channels=384, num_layers=6, embedding_dim=16, latent_dim=512,
        latent_map=(64, 16, 16), map_channels=384, prior_channels=512, encoder_channels=192,
        encoder_blocks=2, batch_size=48, steps=400_000, grad_clip=5.0, precision="bf16-mixed",
        weight_norm=True, compile=True,
    ),
    # The paper's best MNIST model, "without upsampling": section 4.1, and the authors' command.
    "paper": replace(
        _MNIST, data="binarized_mnist", hidden_channels=16, num_layers=12, batch_size=100,
        steps=200_000, learning_rate=1e-3, warmup_steps=0, lr_decay="constant", weight_norm=True,
        kl_warmup=10_000, importance_samples=1000,
    ),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """The model that the flags ask for."""
    if config.condition != "none":
        raise UserError(
            f"expected --condition none for a PixelVAE, got {config.condition}: "
            "pipelines.pixelcnn is conditioned on annotations"
        )
    encoder = _two_levels(config, spec) if config.levels_of_latents == 2 else _one(config, spec)
    return Model(make_decoder(config, spec, encoder.code_shape), encoder)


def _upsample(config: Config, spec: ImageSpec, latent: tuple[int, ...]) -> Upsample | None:
    """From a latent to a map of the image's size; none before deconvolutions, which upsample."""
    if config.decoder == "deconv":
        return None
    return Upsample(latent, (config.map_channels, *spec.image_shape[1:]))


def _one(config: Config, spec: ImageSpec) -> Encoder:
    to_map = config.latent_to == "map"
    return GaussianEncoder(
        spec.image_shape,
        config.latent_dim,
        num_levels=spec.num_levels,
        hidden_channels=config.encoder_channels,
        num_blocks=config.encoder_blocks,
        embedding_dim=config.embedding_dim,
        scale=config.posterior_scale,
        upsample=_upsample(config, spec, (config.latent_dim,)) if to_map else None,
    )


def _two_levels(config: Config, spec: ImageSpec) -> Encoder:
    """A vector z2 and a map z1, whose prior p(z1 | z2) is itself a gated PixelCNN."""
    shape = config.latent_map
    prior_code = (config.prior_channels, shape[1], shape[2])
    prior = GatedPixelCNN(
        shape,
        cond_shape=prior_code,
        hidden_channels=config.prior_channels,
        num_layers=config.prior_layers,
        kernel_size=3,
        first_kernel_size=5,
        likelihood=DiagonalGaussian(),
        color_order="independent",
    )
    return HierarchicalEncoder(
        spec.image_shape,
        map_shape=shape,
        latent_dim=config.latent_dim,
        prior=prior,
        num_levels=spec.num_levels,
        hidden_channels=config.encoder_channels,
        num_blocks=config.encoder_blocks,
        embedding_dim=config.embedding_dim,
        scale=config.posterior_scale,
        prior_upsample=Upsample((config.latent_dim,), prior_code),
        upsample=_upsample(config, spec, shape),
    )


if __name__ == "__main__":
    main("pixelvae", Config, PRESETS, build)
