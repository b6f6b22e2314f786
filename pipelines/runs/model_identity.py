"""Identity of the model of a compressed file: its architecture and its weights.

Other parts of a run, such as its data folder, its name and its steps, do not change probabilities.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pipelines.compression.codecs import method_of
from pipelines.compression.container import DIGITS, Header, checksum
from pipelines.runs.config import RunConfig
from pipelines.runs.load import Run
from pipelines.runs.record import migrated
from pipelines.runtime.config import flat
from pipelines.runtime.errors import DataError
from pipelines.training import config_file
from pipelines.training.comparison import differences
from pipelines.training.weights import WEIGHTS


def architecture(run: Run) -> dict[str, Any]:
    """Return the flags that decide a run's network and its conditioning, as JSON values."""
    shared = {field.name for field in dataclasses.fields(RunConfig)} - {"decoder"}
    config: Any = run.config
    own = {field.name for field in dataclasses.fields(config)} - shared
    flags: dict[str, Any] = {}
    for name in sorted(own):
        flags |= flat(getattr(run.config, name))
    given = {
        "condition": run.spec.condition,
        "num_classes": run.spec.num_classes,
        "num_map_channels": run.spec.num_map_channels,
    }
    return json.loads(json.dumps({"pipeline": run.pipeline, **flags, **given}))


def weights(run_dir: Path) -> bytes:
    """Return the start of the checksum of a run's weights, which opening the run has checked."""
    with safe_open(run_dir / WEIGHTS, framework="pt") as file:
        return bytes.fromhex(file.metadata()["sha256"])[:DIGITS]


def first_fingerprint(run: Run, run_dir: Path) -> bytes:
    """Return the identity in version 1 of the format: a hash of the whole config and weights."""
    saved = config_file.read_config(run_dir)
    kept = {key: saved.get(key) for key in ("pipeline", "config", "images")}
    parts = [json.dumps(kept, sort_keys=True).encode()]
    for name, tensor in sorted(run.model.state_dict().items()):
        parts += [name.encode(), tensor.cpu().contiguous().numpy().tobytes()]
    return checksum(*parts)


def check_model(header: Header, run: Run, file: Path, run_dir: Path) -> bool:
    """Compare a file's model with a run's.

    Returns:
        True if they are the same. False if that is unknown until decoding: the file is of version
        1, and the run's config has changed since, for instance by `--resume`.

    Raises:
        DataError: they differ. The message lists the differences.
    """
    flags = header.architecture
    if header.version < 3:  # flags had other names
        flags = migrated(flags, run.pipeline)
    there = {"images": list(header.image_shape), "levels": header.num_levels, **flags}
    here = {
        "images": list(run.spec.image_shape),
        "levels": run.spec.num_levels,
        **architecture(run),
    }
    known = {name: here[name] for name in there if name in here}  # later versions have other flags
    found = differences({name: there[name] for name in known}, known)
    method = method_of(run.model, bits_back=header.method == "bits-back") if not found else ""
    if method and method != header.method:
        found = [f"coded as {header.method!r} there, {method!r} here"]
    if not found and header.version > 1 and header.model != weights(run_dir):
        found = ["of the same architecture, with other weights"]
    if found:
        raise DataError(
            f"{file} was written with another model than that of {run_dir} ({'; '.join(found)}): "
            "name the run that encoded it"
        )
    return header.version > 1 or header.model == first_fingerprint(run, run_dir)
