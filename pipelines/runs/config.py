"""The flags that all training commands share."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.data.config import DataConfig
from pipelines.runs.networks import DecoderConfig
from pipelines.training import config as training
from pipelines.training.config import TrainConfig

# The smallest values of flags, those that only some pipelines have included.
LEAST = {
    **dict.fromkeys(("score_batch", "hidden_channels", "num_blocks", "mixtures", "code_dim"), 1),
    **dict.fromkeys(("latent_dim", "map_channels", "prior_channels", "encoder_channels"), 1),
    **dict.fromkeys(("importance_samples", "num_samples", "num_layers", "prior_layers"), 0),
    **dict.fromkeys(("encoder_blocks", "embedding_dim"), 0),
}

# What a resumed run may change: beside what does not change the training, how it is reported.
MAY_DIFFER = training.MAY_DIFFER | {
    *("preset", "score_batch", "importance_samples", "num_samples", "name")
}


@dataclass(frozen=True)
class RunConfig(DecoderConfig, TrainConfig, DataConfig):
    """The flags that all training commands share."""

    preset: str = ""
    """A named set of defaults in place of the data set's own; they are listed above."""
    score_batch: int = 64
    """Images scored at once; the score does not depend on it."""
    importance_samples: int = 100
    """K of the importance-weighted estimate beside a bound (0: none)."""
    num_samples: int = 64
    """About how many samples to draw in the end (0: no pictures)."""
    name: str = ""
    """What result tables call this run (default: the model's name)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        DataConfig.__post_init__(self)
        for name, least in LEAST.items():
            if getattr(self, name, least) < least:
                self._refuse(name, f"at least {least}")
