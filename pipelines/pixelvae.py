"""Train a PixelVAE: a variational autoencoder whose decoder is a PixelCNN.

The result is a bound on the negative log-likelihood of every test image: the negative ELBO with the
full KL term, whatever training minimized, split into rate and distortion. The importance-weighted
estimate is tighter, and is given as well.

Source: Gulrajani et al.: PixelVAE: A Latent Variable Model for Natural Images (2016),
https://arxiv.org/abs/1611.05013
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipelines.runs.config import RunConfig
from pipelines.runs.pipeline import Pipeline
from pipelines.runs.record import ImageSpec
from pipelines.runtime.config import Bounded, Count, Positive
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from encoders import Encoder, Upsample
    from pipelines.model import Model


@dataclass(frozen=True)
class LatentConfig(Bounded):
    """The latents, their encoder and their prior."""

    latent_dim: Positive = 16
    """Dimensions of the (top) latent vector."""
    latent_to: Literal["layers", "map"] = "layers"
    """Conditioning on a single latent vector: a bias in each layer, or an upsampled map (the deconv
    decoder upsamples the vector itself)."""
    map_channels: Positive = 16
    """Channels of the upsampled map."""
    levels_of_latents: Literal[1, 2] = 1
    """1: a latent vector. 2: a vector, and below it a map with a PixelCNN prior."""
    latent_map: tuple[int, int, int] = (16, 8, 8)
    """Channels, height and width of the lower of two levels."""
    prior_channels: Positive = 32
    """Features of the PixelCNN prior over the lower level."""
    prior_layers: Count = 3
    """Layers of the PixelCNN prior."""
    encoder_channels: Positive = 32
    """Features of the encoder at full size, doubled with each halving, up to four times."""
    encoder_blocks: Count = 1
    """Residual blocks of the encoder at each size."""
    encoder_embedding_dim: Count = 0
    """Size of the encoder's learned embedding of each level (0: the scaled level, no embedding)."""
    posterior_scale: Literal["exp", "softsign"] = "exp"
    """The posterior's standard deviation: exp(s), or (softsign(s) + 1) / 2, which stays below 1."""


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags of `python -m pipelines.pixelvae`."""

    latents: LatentConfig = field(default_factory=LatentConfig)

    def unused(self) -> dict[str, str]:
        """Return the flags without an effect in this configuration, and why."""
        two = self.latents.levels_of_latents == 2
        of_two = ("latent_map", "prior_channels", "prior_layers", "kl_warmup_top")
        unused = {} if two else {name: "without --levels-of-latents 2" for name in of_two}
        if two:
            unused["latent_to"] = "with two levels of latents"
        elif self.latents.latent_to != "map":
            unused["map_channels"] = "without --latent-to map"
        return {**super().unused(), **unused}


_DIGITS = Config.of(
    data="digits", epochs=40, batch_size=48, hidden_channels=32, num_layers=3, kernel_size=3,
    first_kernel_size=3, learning_rate=3e-3, lr_decay="cosine", ema=0.99, latent_dim=8,
    kl_warmup=300, eval_every=100,
)  # fmt: skip
_MNIST = Config.of(
    data="mnist", epochs=10, batch_size=64, hidden_channels=32, num_layers=5, learning_rate=3e-3,
    warmup_steps=100, lr_decay="cosine", ema=0.998, latent_dim=16, kl_warmup=1000,
    importance_samples=10, compile=True, eval_every=1000,
)  # fmt: skip
_CIFAR = Config.of(
    data="cifar10", epochs=10, batch_size=32, hidden_channels=64, num_layers=5,
    latent_dim=64, latent_to="map", learning_rate=1e-3, warmup_steps=200, lr_decay="cosine",
    kl_warmup=1000, importance_samples=10, compile=True,
)  # fmt: skip
# Two levels, after the authors' 64×64 model, at a size that a CPU can try.
_SMALL = Config.of(
    data="imagenet64", epochs=10, batch_size=16, hidden_channels=64, num_layers=4, kernel_size=3,
    first_kernel_size=5, embedding_dim=4, encoder_embedding_dim=4, levels_of_latents=2,
    latent_dim=128, latent_map=(16, 16, 16), prior_channels=64, prior_layers=3, encoder_channels=32,
    posterior_scale="softsign", learning_rate=1e-3, warmup_steps=20, lr_decay="cosine",
    kl_warmup=1000, kl_warmup_top=10000, importance_samples=4, num_samples=36, score_batch=16,
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
    **{name: _CIFAR.but(data=name) for name in ("cifar10", "svhn", "celeba", "imagenet32")},
    "imagenet64": _SMALL,
    "small": _SMALL,
    # The sizes of `64px_big` in the authors' code, https://github.com/igul222/PixelVAE.
    "big": _SMALL.but(
        hidden_channels=384, num_layers=6, embedding_dim=16,
        encoder_embedding_dim=16, latent_dim=512,
        latent_map=(64, 16, 16), map_channels=384, prior_channels=512, encoder_channels=192,
        encoder_blocks=2, batch_size=48, steps=400_000, grad_clip=5.0, precision="bf16-mixed",
        weight_norm=True, compile=True,
    ),
    # The paper's best MNIST model, "without upsampling": section 4.1, and the authors' command.
    "paper": _MNIST.but(
        data="binarized_mnist", hidden_channels=16, num_layers=12, batch_size=100,
        steps=200_000, learning_rate=1e-3, warmup_steps=0, lr_decay="constant", weight_norm=True,
        kl_warmup=10_000, importance_samples=1000,
    ),
}  # fmt: skip


def build(config: Config, spec: ImageSpec) -> Model:
    """Return the model that the flags ask for."""
    from pipelines.model import Model  # torch takes seconds to import: flags first
    from pipelines.runs.networks import make_decoder

    if spec.condition != "none":
        raise UserError(
            f"expected --condition none for a PixelVAE, got {spec.condition}: "
            "pipelines.pixelcnn is conditioned on annotations"
        )
    two = config.latents.levels_of_latents == 2
    encoder = _two_levels(config, spec) if two else _one_level(config, spec)
    return Model(make_decoder(config.decoder, spec, encoder.code_shape), encoder)


def _one_level(config: Config, spec: ImageSpec) -> Encoder:
    """Return the encoder of a latent vector z."""
    from encoders import GaussianEncoder

    latents = config.latents
    upsample = None
    if latents.latent_to == "map":
        upsample = _upsample(config, spec, (latents.latent_dim,))
    return GaussianEncoder(
        spec.image_shape,
        latents.latent_dim,
        num_levels=spec.num_levels,
        hidden_channels=latents.encoder_channels,
        num_blocks=latents.encoder_blocks,
        embedding_dim=latents.encoder_embedding_dim,
        scale=latents.posterior_scale,
        upsample=upsample,
    )


def _two_levels(config: Config, spec: ImageSpec) -> Encoder:
    """Return the encoder of a vector z2 and a map z1 with a gated PixelCNN prior p(z1 | z2)."""
    from decoders import DiagonalGaussian, GatedPixelCNN
    from encoders import HierarchicalEncoder, Upsample

    latents, shape = config.latents, config.latents.latent_map
    prior_code = (latents.prior_channels, shape[1], shape[2])
    prior = GatedPixelCNN(
        shape,
        cond_shape=prior_code,
        hidden_channels=latents.prior_channels,
        num_layers=latents.prior_layers,
        kernel_size=3,
        first_kernel_size=5,
        likelihood=DiagonalGaussian(),
        color_order="independent",
    )
    return HierarchicalEncoder(
        spec.image_shape,
        map_shape=shape,
        latent_dim=latents.latent_dim,
        prior=prior,
        num_levels=spec.num_levels,
        hidden_channels=latents.encoder_channels,
        num_blocks=latents.encoder_blocks,
        embedding_dim=latents.encoder_embedding_dim,
        scale=latents.posterior_scale,
        prior_upsample=Upsample((latents.latent_dim,), prior_code),
        upsample=_upsample(config, spec, shape),
    )


def _upsample(config: Config, spec: ImageSpec, latent: tuple[int, ...]) -> Upsample | None:
    """Return a network from a latent to a map of the image's size.

    None for decoders that draw all pixels at once, such as deconvolutions, which upsample by
    themselves.
    """
    from encoders import Upsample
    from pipelines.runs.networks import decoder_class

    if not decoder_class(config.decoder).autoregressive:
        return None
    return Upsample(latent, (config.latents.map_channels, *spec.image_shape[1:]))


PIPELINE = Pipeline(
    "pixelvae",
    Config,
    PRESETS,
    build,
    doc=__doc__ or "",
    examples=(
        "python -m pipelines.pixelvae --data digits",
        "python -m pipelines.pixelvae --data imagenet64 --data-dir ~/data/imagenet",
    ),
)

main = PIPELINE.main

if __name__ == "__main__":
    main()
