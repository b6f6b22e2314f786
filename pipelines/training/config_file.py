"""config.json of a run directory: written atomically, and read as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.files import write_text

CONFIG = "config.json"


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write config.json; all values must be serializable as JSON."""
    write_text(run_dir / CONFIG, json.dumps(config, indent=2) + "\n")


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{run_dir} is not a run directory: it has no {CONFIG}")
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}): undo the change that was made to it, or train again"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected one JSON object in {path}: undo the change that was made to it"
        )
    return config
