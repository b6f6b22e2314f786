"""Tables of decoders and of likelihoods, and the flags that choose and size them.

A new decoder is one file in `decoders/` and one line in the table: its constructor's keyword
arguments are its flags. A user's own is `--decoder package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.runs.options import Options, options_of
from pipelines.runtime.config import Bounded, changed, flag, flat, is_given, suggestion
from pipelines.runtime.errors import ConfigError

DECODERS = {
    "gated": "decoders:GatedPixelCNN",
    "pixelcnn": "decoders:PixelCNN",
    "pixelcnn++": "decoders:PixelCNNPlusPlus",
    "pixelsnail": "decoders:PixelSNAIL",
    "deconv": "decoders:DeconvDecoder",
}
LIKELIHOODS = {
    "categorical": "decoders:Categorical",
    "logistic": "decoders:DiscretizedLogisticMixture",
}

# Arguments that the data set, the encoder or other flags decide.
_GIVEN = ("image_shape", "num_levels", "cond_shape", "likelihood")


def target(table: dict[str, str], name: str, what: str) -> str:
    """Return the `package.module:Class` of a name in a table; such a name is returned as it is.

    Raises:
        ConfigError: the name is neither.
    """
    if ":" in name:
        return name
    if name not in table:
        raise ConfigError(
            f"{what} {name} is unknown{suggestion(name, table)}, or package.module:Class"
        )
    return table[name]


def network_options(decoder: str) -> Options:
    """Return the flags of a decoder, with their defaults."""
    return options_of(target(DECODERS, decoder, "--decoder"), _GIVEN)()


def likelihood_options(likelihood: str) -> Options:
    """Return the flags of a likelihood, with their defaults."""
    return options_of(target(LIKELIHOODS, likelihood, "--likelihood"), _GIVEN)()


@dataclass(frozen=True)
class DecoderConfig(Bounded):
    """The decoder p(x | h) and its likelihood."""

    decoder: str = "gated"
    """gated (Gated PixelCNN), pixelcnn (one masked stack), pixelcnn++ (two streams at three
    scales), pixelsnail (convolutions and attention), deconv (deconvolutions, independent pixels),
    or package.module:Class of your own. Its flags are those of its constructor."""
    likelihood: str = "categorical"
    """categorical (a softmax over all levels), logistic (a mixture of discretized logistic
    distributions), or package.module:Class of your own."""
    network: Options = field(default_factory=lambda: network_options("gated"))
    """Size and parts of the decoder's network."""
    head: Options = field(default_factory=lambda: likelihood_options("categorical"))
    """Parts of the likelihood."""

    def choosing(self, decoder: str, likelihood: str) -> DecoderConfig:
        """Return the configuration of another decoder and likelihood.

        It keeps the chosen values of the flags that both have.
        """
        network, head = self.network, self.head
        if decoder != self.decoder:
            network = _carried(network_options(decoder), network)
        if likelihood != self.likelihood:
            head = _carried(likelihood_options(likelihood), head)
        return DecoderConfig(decoder, likelihood, network, head)


def _carried(new: Options, old: Options) -> Options:
    """Return new options with those values of the old ones that are not defaults."""
    defaults, known = flat(type(old)()), flat(new)
    chosen = {name: value for name, value in flat(old).items() if value != defaults[name]}
    return changed(new, {name: value for name, value in chosen.items() if name in known})


def refuse_other_parts(config: DecoderConfig, args: Sequence[str]) -> None:
    """Raise a ConfigError for a flag, among raw arguments, of another decoder or likelihood."""
    known = flat(config)
    for table, options, what in (
        (DECODERS, network_options, "decoder"),
        (LIKELIHOODS, likelihood_options, "likelihood"),
    ):
        for other in table:
            for name in flat(options(other)):
                if name not in known and is_given(args, name):
                    raise ConfigError(
                        f"{flag(name)} is a flag of --{what} {other}, and does not apply to "
                        f"{known[what]}: leave it out"
                    )
