"""What a run leaves in its directory, which describes itself and is never half-written.

    config.json                        what was trained, on what, by which command
    weights.safetensors                the averaged weights: what is scored and sampled from
    checkpoints/step-000001000-HASH.pt everything that resuming needs; HASH is its own checksum
    metrics.jsonl, nonfinite.jsonl     one JSON object a line

Every file is written atomically. The checksum stands in the checkpoint's name, so that the two come
into being together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.files import whole_file
from pipelines.runtime.messages import warn

WEIGHTS, CHECKPOINTS = "weights.safetensors", "checkpoints"
FORMAT = 1  # of a checkpoint; raise it when its contents change
DIGITS = 16  # of the SHA-256 in a checkpoint's name


def differences(
    saved: Any, now: Any, may_differ: Collection[str] = (), name: str = ""
) -> list[str]:
    """The fields in which two nested configs differ, as readable lines.

    >>> differences({"a": 1, "b": {"c": 2, "out": "x"}}, {"a": 1, "b": {"c": 3}}, {"out"})
    ['b.c: 2 there, 3 here']
    """
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        found = []
        for key in [*saved, *(key for key in now if key not in saved)]:
            if key not in may_differ:
                inner = f"{name}.{key}" if name else str(key)
                missing = "nothing"
                found += differences(
                    saved.get(key, missing), now.get(key, missing), may_differ, inner
                )
        return found
    if isinstance(saved, (list, tuple)) and isinstance(now, (list, tuple)):
        saved, now = list(saved), list(now)  # JSON knows no tuples
    return [] if saved == now else [f"{name}: {saved!r} there, {now!r} here"]


def check_same(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    source: Path,
    may_differ: Collection[str] = (),
) -> None:
    """Refuse to go on with a run of another configuration or data set.

    Raises:
        CheckpointError: listing every field that differs.
    """
    found = differences(saved, now, may_differ)
    if found:
        raise CheckpointError(
            f"{source} is of another configuration ({'; '.join(found)}): "
            "give the same flags as then, or choose another --out"
        )


# Checkpoints


class _Hashed:
    """A file to write to, which adds what goes through to a hash."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self.file, self.hash = file, digest

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, newest first, whole or damaged."""
    return sorted((run_dir / CHECKPOINTS).glob("step-*.pt"), reverse=True)


def step_of(path: Path) -> int:
    """The step that a checkpoint's name states.

    >>> step_of(Path("checkpoints/step-000001000-0123456789abcdef.pt"))
    1000
    """
    return int(path.name.split("-")[1])


def save_state(run_dir: Path, state: Mapping[str, Any], *, keep: int, best: int | None) -> Path:
    """Write a checkpoint, then delete all but the newest `keep` and the one of step `best`.

    Args:
        run_dir: the run directory.
        state: tensors, numbers, strings, lists and dicts; state["step"] names the file.
        keep: how many of the newest stay.
        best: the step whose checkpoint stays however old it is.

    Raises:
        CheckpointError: it can't be written; the earlier ones are untouched.
    """
    folder = run_dir / CHECKPOINTS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {folder}: {error.strerror}") from error
    name = f"step-{state['step']:09d}"

    digest = hashlib.sha256()

    def named() -> str:
        return f"{name}-{digest.hexdigest()[:DIGITS]}.pt"

    with whole_file(folder / f"{name}.pt", replace=True, named=named) as file:
        through = _Hashed(file, digest)
        torch.save({"format": FORMAT, **state}, through)  # pyright: ignore[reportArgumentType]
    prune(run_dir, keep=keep, best=best)
    return folder / named()


def prune(run_dir: Path, *, keep: int, best: int | None) -> None:
    """Delete old checkpoints; one that can't be deleted is only an annoyance."""
    for path in checkpoints(run_dir)[max(keep, 1) :]:
        if step_of(path) != best:
            try:
                path.unlink()
            except OSError as error:
                warn(f"cannot delete the old checkpoint {path}: {error.strerror}")


class DamagedError(CheckpointError):
    """A checkpoint's content is not what was written: its checksum differs."""


def read_state(path: Path) -> dict[str, Any]:
    """Read one checkpoint, with `weights_only=True`: a pickle in disguise runs nothing.

    Raises:
        DamagedError: it is not what its checksum says.
        CheckpointError: it can't be read just now, or it is not a checkpoint of ours.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not path.stem.endswith("-" + digest.hexdigest()[:DIGITS]):
        raise DamagedError(f"{path} is damaged: its checksum is not the one in its name")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # no memory, or whatever a reader of hostile files may raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read {path}, which is not damaged: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise CheckpointError(
            f"expected {path} to be a checkpoint of format {FORMAT}, got format {found}: go on "
            "with the version of this toolkit that wrote it"
        )
    return state


def newest_valid(run_dir: Path) -> Path | None:
    """The newest checkpoint that is not damaged; None if the run never saved one.

    Damaged ones are passed over with a loud message and set aside, renamed to *.damaged.

    Raises:
        CheckpointError: there are checkpoints, and not one is valid; or the newest one that is not
            damaged can't be read, for which reason nothing is renamed.
    """
    found = checkpoints(run_dir)
    for path in found:
        try:
            read_state(path)
            return path
        except DamagedError as error:
            warn(f"{error}; trying the one before it")
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + ".damaged"))
    if found:
        raise CheckpointError(
            f"every checkpoint in {run_dir / CHECKPOINTS} is damaged; "
            "begin again with another --out"
        )
    return None


# Weights


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a module that must have exactly these names and shapes.

    Raises:
        CheckpointError: listing what is missing, what is unknown, and whose shape differs.
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
        raise CheckpointError(f"{source} is of another model ({'; '.join(faults)})")
    module.load_state_dict(dict(tensors))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(run_dir: Path, module: nn.Module, *, step: int) -> Path:
    """Write weights.safetensors: names and tensors, and the step and a checksum beside them."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    metadata = {"step": str(step), "sha256": _digest(tensors)}
    path = run_dir / WEIGHTS
    with whole_file(path, replace=True) as file:
        file.write(_in_order(to_safetensors(tensors, metadata)))
    return path


def _in_order(data: bytes) -> bytes:
    """The same safetensors with its metadata sorted: the library writes them in a random order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_weights(run_dir: Path, module: nn.Module) -> int:
    """Load weights.safetensors into a module built from the run's config.

    Returns:
        The training step that they are of.

    Raises:
        CheckpointError: there are none, they are damaged, or of another model.
    """
    path = run_dir / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"{run_dir} has no {WEIGHTS}: the run was stopped before its first checkpoint; "
            "go on with it by --resume"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); go on with the run by --resume"
        ) from error
    except (OSError, MemoryError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {path}, which may be sound: {error}") from error
    if "sha256" not in metadata or not metadata.get("step", "").isdecimal():
        raise CheckpointError(
            f"{path} names no checksum and step: expected weights that a run of this toolkit saved"
        )
    if metadata["sha256"] != _digest(tensors):
        raise CheckpointError(f"{path} is damaged: its checksum differs; go on with --resume")
    load_into(module, tensors, path)
    return int(metadata["step"])
