"""Models saved with their configuration, and loaded without knowing it: no pickle, no code run.

recorded class and arguments ── config.json ────────┐
weights ─────────────────────── model.safetensors ──┴── from_pretrained ── the same model

This file is the same in `decoders` and in `encoders`, but for the import below. The folder has the
layout of the Hugging Face Hub.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from decoders.recorded import PretrainedError, Recorded, plain_state, rebuild

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1  # of config.json; raise it when its content changes

P = TypeVar("P", bound="Pretrained")


class Pretrained(Recorded, nn.Module):
    """A module that is saved with its configuration and loaded without knowing it."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors to a new or empty folder, whole or not at all.

        Args:
            folder: its name; folders around it are created.

        Raises:
            PretrainedError: the folder is not empty or can't be written; an argument of the
                constructor can't be saved, or the layers are not those that it builds.
        """
        described, tensors = described_model(self)
        config = {
            "format": FORMAT,
            "library_name": "pixel-decoders",
            "architectures": [type(self).__name__],
            **described,
        }
        with _whole_folder(folder) as unfinished:
            _write(unfinished / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
            _write(unfinished / WEIGHTS, _to_safetensors(tensors))

    @classmethod
    def from_pretrained(
        cls: type[P], source: str | Path, *, trust: Sequence[str] = (), revision: str | None = None
    ) -> P:
        """Return the model that `save_pretrained` wrote, in evaluation mode, on the CPU.

        Called on a base class, such as `Decoder`, it returns whichever of its kind is there.

        Args:
            source: the folder, or "user/name" on the Hugging Face Hub (needs
                `pip install "pixel-decoders[hub]"`).
            trust: modules of your own that may be imported. Without them no code is run but the
                toolkit's and that of this class.
            revision: branch, tag or commit on the Hub.

        Raises:
            PretrainedError: there is no such folder, its files are damaged or don't fit together,
                it holds another class, or one of a module that is not trusted.
        """
        folder = _find(source, revision)
        config = read_config(folder)
        trusted = [trust] if isinstance(trust, str) else list(trust)
        with torch.random.fork_rng(devices=[]):
            model = rebuild(config, [*trusted, cls.__module__], known=cls)
        if not isinstance(model, cls):
            raise PretrainedError(
                f"{folder} holds a {type(model).__name__}, not a {cls.__name__}: load it with "
                f"{type(model).__name__}.from_pretrained"
            )
        load_weights(model, folder / WEIGHTS)
        return model.eval()

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, commit_message: str = "Upload model"
    ) -> str:
        """Save to the Hugging Face Hub, in a repository that is created if there is none.

        Args:
            repo_id: "user/name". You must be logged in, as with `hf auth login`.
            private: whether a repository that is created is private.
            commit_message: title of the commit.

        Returns:
            The address of the commit.

        Raises:
            PretrainedError: huggingface_hub is not installed; as for `save_pretrained`.
        """
        api = _hub().HfApi()
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder, "model")
            self.save_pretrained(saved)
            card = _CARD.format(name=type(self).__name__, repo=repo_id)
            (saved / "README.md").write_text(card, encoding="utf-8")
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=str(saved), commit_message=commit_message
            )
        return str(commit)


_CARD = """---
library_name: pixel-decoders
---
A `{name}` of pixel-decoders: `{name}.from_pretrained("{repo}")`.
"""


def described_model(model: Pretrained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return class and arguments of a model, and its weights: what builds it again.

    Raises:
        PretrainedError: its arguments can't be saved, or its layers are not those that they build.
    """
    if isinstance(model.recorded, str):
        raise PretrainedError(model.recorded)
    tensors = plain_state(model)
    with torch.random.fork_rng(devices=[]):
        twin: Any = rebuild(model.recorded, None, known=type(model))
    _check_same(twin, tensors, "it was changed after it was built, so that loading would fail")
    return model.recorded, tensors


# Files


def _to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save  # where it is needed: this package imports torch alone

    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():  # the format has no shared weights
        apart[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return save(apart, {"format": "pt"})


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json.

    Raises:
        PretrainedError: it is missing, damaged or of a later version.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PretrainedError(f"{folder} has no {CONFIG}: expected a saved model") from error
    except OSError as error:
        raise PretrainedError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PretrainedError(f"{path} is damaged ({error}): fetch or save it again") from error
    if not isinstance(config, dict):
        raise PretrainedError(f"{path} is damaged (no JSON object): fetch or save it again")
    number = config.get("format", FORMAT)
    if not isinstance(number, int) or number > FORMAT:
        raise PretrainedError(
            f"expected {path} to be of format {FORMAT}, got {number}: update the toolkit"
        )
    return config


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights into a module that must have exactly these; it takes on their types.

    Raises:
        PretrainedError: they are missing, damaged or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise PretrainedError(f"{path.parent} has no {WEIGHTS}: expected a saved model") from error
    except (OSError, SafetensorError) as error:
        raise PretrainedError(f"{path} can't be read ({error}): fetch or save it again") from error
    _check_same(module, tensors, f"{path} is of another model")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in tensors:
            tensor.data = tensor.data.to(tensors[name].dtype)
    module.load_state_dict(tensors)


def _check_same(module: nn.Module, tensors: Mapping[str, Tensor], otherwise: str) -> None:
    own = module.state_dict()
    faults = [f"missing {name}" for name in own if name not in tensors]
    faults += [f"unknown {name}" for name in tensors if name not in own]
    faults += [
        f"{name} {tuple(tensors[name].shape)} in place of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise PretrainedError(
            f"expected the weights of a {type(module).__name__} as {CONFIG} describes it: "
            f"{otherwise} ({'; '.join(faults[:3])}{more})"
        )


@contextlib.contextmanager
def _whole_folder(name: str | Path) -> Iterator[Path]:
    """Give a folder to write to, which takes its name once all of it is on the disk."""
    folder = Path(os.path.realpath(os.path.expanduser(name)))
    beside = folder.with_name(f".{folder.name[:180]}.{secrets.token_hex(4)}.unfinished")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PretrainedError(f"{name} is not an empty folder: choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        _sync(beside)
        os.rename(beside, folder)
        _sync(folder.parent)
    except OSError as error:
        raise PretrainedError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# The Hugging Face Hub


def _find(source: str | Path, revision: str | None) -> Path:
    """Return the folder of a saved model, fetched from the Hub if it is not there."""
    folder = Path(os.path.expanduser(source))
    if folder.is_dir():
        return folder
    if not (isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source)):
        raise PretrainedError(f"there is no folder {source}: check the path")
    try:
        files = [CONFIG, WEIGHTS]
        fetched = _hub(f"there is no folder {source}; to look for it on the Hub").snapshot_download(
            source, revision=revision, allow_patterns=files
        )
    except PretrainedError:
        raise
    except Exception as error:  # of the network, of the Hub, of a repository that is not there
        said = " ".join(str(error).split())
        raise PretrainedError(
            f"there is no folder {source}, and it can't be fetched from the Hugging Face Hub "
            f"({said:.200})"
        ) from error
    return Path(fetched)


def _hub(purpose: str = "to use the Hugging Face Hub") -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise PretrainedError(f'{purpose}: pip install "pixel-decoders[hub]"') from error
