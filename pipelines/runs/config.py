"""Flags that all training commands share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipelines.data.config import DataConfig
from pipelines.runs.decoders import DecoderConfig
from pipelines.runtime.config import Bounded, Count, DeviceConfig, Positive, changed
from pipelines.training import config as training
from pipelines.training.config import TrainConfig

C = TypeVar("C", bound="SharedConfig")

# Flags that a resumed run may change: they change its report, but not the training.
MAY_DIFFER = training.MAY_DIFFER | {
    *("preset", "score_batch", "importance_samples", "num_samples", "name")
}


@dataclass(frozen=True)
class ReportConfig(Bounded):
    """Scores and pictures of the trained model."""

    score_batch: Positive = 64
    """Number of images scored at once. The score does not depend on it."""
    importance_samples: Count = 100
    """K of the importance-weighted estimate next to a bound (0: none)."""
    num_samples: Count = 64
    """Approximate number of samples to draw at the end (0: no pictures)."""
    name: str = ""
    """Name of this run in result tables (default: the model's)."""


class SharedConfig(Bounded):
    """Parts that the configurations of all runs share."""

    data: DataConfig
    training: TrainConfig
    devices: DeviceConfig
    report: ReportConfig

    @property
    def data_name(self) -> str:
        """Name of the data set in results."""
        return self.data.data

    @classmethod
    def of(cls: type[C], **flags: Any) -> C:
        """Return the default configuration with these flags, of any of its parts.

        Raises:
            ConfigError: there is no such flag, or its value is impossible.
        """
        return cls().but(**flags)

    def but(self: C, **flags: Any) -> C:
        """Return this configuration with other values of some flags."""
        return changed(self, flags)

    def opened(self: C, run_dir: Path) -> C:
        """Return the configuration as it is where the run is now.

        Packed images may be elsewhere: the run was moved, or trained on another machine.
        """
        return self if Path(self.data.cache_dir).is_dir() else self.but(cache_dir="")


R = TypeVar("R", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig(SharedConfig):
    """Flags that all training commands share.

    >>> config = RunConfig.of(data="mnist", decoder="pixelcnn++", num_blocks=1, epochs=3)
    >>> config.data.data, config.training.epochs, config.decoder.network.num_blocks
    ('mnist', 3, 1)
    >>> config.but(epochs=4).training.epochs
    4
    """

    preset: str = ""
    """A named set of defaults in place of the data set's own."""
    data: DataConfig = field(default_factory=DataConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    devices: DeviceConfig = field(default_factory=DeviceConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def but(self: R, **flags: Any) -> R:
        """Return this configuration with other values of some flags.

        Another decoder or likelihood keeps the values of the flags that both have.
        """
        now = self.decoder
        decoder = flags.get("decoder", now.decoder)
        parts = now.choosing(decoder, flags.get("likelihood", now.likelihood))
        return changed(dataclasses.replace(self, decoder=parts), flags)

    def unused(self) -> dict[str, str]:
        """Return the flags without an effect in this configuration, and why."""
        return {}
