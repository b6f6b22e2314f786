"""Typed and versioned content of a run's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pipelines.runs.config import SharedConfig
from pipelines.runs.decoders import likelihood_options, network_options
from pipelines.runtime.config import flat
from pipelines.runtime.errors import CheckpointError, ConfigError
from pipelines.training.config_file import CONFIG, read_config, write_config

if TYPE_CHECKING:
    from pipelines.data.images import Images

C = TypeVar("C", bound=SharedConfig)

FORMAT = 2  # of config.json. Increase it when its content changes, and add a migration.


@dataclass(frozen=True)
class ImageSpec:
    """The images that a network is built for."""

    image_shape: tuple[int, int, int]
    num_levels: int
    condition: str = "none"
    num_classes: int = 0
    num_map_channels: int = 0

    @classmethod
    def of(cls, images: Images) -> ImageSpec:
        """Return the specification of a data set's images."""
        return cls(
            images.image_shape,
            images.num_levels,
            images.condition,
            images.num_classes,
            images.num_map_channels,
        )


@dataclass(frozen=True)
class RunRecord:
    """Record of a run: its command, its configuration and its images.

    Attributes:
        pipeline: name of the command, or package.module:name of a user's `Pipeline`.
        version: version of the toolkit.
        command: command line, after those of earlier parts of a resumed run.
        commit: commit of the toolkit, or None outside a checkout.
        config: every flag by name.
        images: specification of the images that the model is for.
        fingerprint: fingerprint of the training set.
        format: version of this record.
    """

    pipeline: str
    version: str
    command: str
    commit: str | None
    config: dict[str, Any]
    images: ImageSpec
    fingerprint: str
    format: int = FORMAT

    def write(self, run_dir: Path) -> None:
        """Write config.json, whole or not at all."""
        write_config(run_dir, asdict(self))


def read_record(run_dir: Path) -> RunRecord:
    """Read a run's config.json, of this version of the toolkit or an earlier one.

    Raises:
        CheckpointError: there is none, or it is damaged, of a later version, or describes no run.
    """
    path = run_dir / CONFIG
    saved = read_config(run_dir)
    number = saved.get("format", 1)
    if isinstance(number, int) and number > FORMAT:
        raise CheckpointError(
            f"{path} was written by a later version of this toolkit "
            f"({saved.get('version', 'unknown')}): update the toolkit"
        )
    if number == 1 and isinstance(saved.get("config"), dict):
        config = migrated(saved["config"], str(saved.get("pipeline")))
        saved = {**saved, "config": config, "format": FORMAT}
    try:
        return msgspec.convert(saved, RunRecord)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path} describes no run ({error}): it was changed by hand, or is of something else"
        ) from error


def config_of(record: RunRecord, config_class: type[C], source: Path) -> C:
    """Return the configuration of a record.

    Raises:
        CheckpointError: it has fields that this version does not know, or impossible values.
    """
    try:
        return config_class.of(**record.config)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{source / CONFIG} describes no run: {error}") from error


# Earlier formats


_RENAMED = {"mixtures": "num_components"}
_NONE_NOW = {"head_channels": 0}  # a value that stood for None

# Defaults that have changed since: a missing field has the value of its time.
_DEFAULTS_THEN: dict[str, Any] = {}


def migrated(config: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
    """Return the flags of format 1 as today's: renamed ones, and none that the decoder lacks.

    In format 1 every decoder had the flags of all, and the encoder of a PixelVAE had its
    --embedding-dim.
    """
    old = {**_DEFAULTS_THEN, **config}
    new = {_RENAMED.get(name, name): value for name, value in old.items()}
    for name, value in _NONE_NOW.items():
        if name in new and new[name] == value:
            new[name] = None
    if pipeline == "pixelvae":
        new["encoder_embedding_dim"] = new.get("embedding_dim", 0)
    if new.get("decoder") == "pixelcnn++":
        new["weight_norm"] = False  # had no effect
    decoder, likelihood = new.get("decoder", "gated"), new.get("likelihood", "categorical")
    kept = {**flat(network_options(decoder)), **flat(likelihood_options(likelihood))}
    return {name: value for name, value in new.items() if name not in _OPTIONS_1 or name in kept}


_OPTIONS_1 = frozenset(
    (
        *("num_components", "hidden_channels", "num_layers", "num_blocks", "kernel_size"),
        *("first_kernel_size", "color_order", "head_channels", "embedding_dim", "dropout"),
        *("residual", "weight_norm"),
    )
)
