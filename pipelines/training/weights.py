"""weights.safetensors: the averaged weights of a run, their step and a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.files import whole_file

WEIGHTS = "weights.safetensors"


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a module that must have exactly these names and shapes.

    Raises:
        CheckpointError: names or shapes differ; the message lists them.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    faults = [
        f"{label}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
        for label, names in (("missing", missing), ("unknown", unknown), ("shapes", shapes))
        if names
    ]
    if faults:
        raise CheckpointError(f"{source} belongs to another model ({'; '.join(faults)})")
    module.load_state_dict(dict(tensors))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(run_dir: Path, module: nn.Module, *, step: int) -> Path:
    """Write weights.safetensors, with the step and a checksum in its metadata."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    metadata = {"step": str(step), "sha256": _digest(tensors)}
    path = run_dir / WEIGHTS
    with whole_file(path, replace=True) as file:
        file.write(_in_order(to_safetensors(tensors, metadata)))
    return path


def _in_order(data: bytes) -> bytes:
    """Return the same safetensors with sorted metadata: the library writes it in random order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_weights(run_dir: Path, module: nn.Module) -> int:
    """Load weights.safetensors into a module built from the run's config.

    Returns:
        Their training step.

    Raises:
        CheckpointError: there are none, they are damaged, or they belong to another model.
    """
    path = run_dir / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"{run_dir} has no {WEIGHTS}: the run was stopped before its first checkpoint; "
            "resume it with --resume"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): resume the run with --resume"
        ) from error
    except (OSError, MemoryError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {path}, which may be undamaged: {error}") from error
    if "sha256" not in metadata or not metadata.get("step", "").isdecimal():
        raise CheckpointError(
            f"{path} has no checksum and step: expected weights that a run of this toolkit saved"
        )
    if metadata["sha256"] != _digest(tensors):
        raise CheckpointError(
            f"{path} is damaged, since its checksum differs: resume the run with --resume"
        )
    load_into(module, tensors, path)
    return int(metadata["step"])
