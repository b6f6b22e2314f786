"""Provenance of a result: the command line, the toolkit's commit, the versions it ran with."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"  # of this toolkit
SCRIPT = "pixel-decoders"  # the console script, as pyproject.toml names it
PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy")


def command(*more: str) -> str:
    """Return the running command line as one would type it, with `more` words appended."""
    if by_script():
        return join([SCRIPT, *sys.argv[1:], *more])
    return join(["python", *sys.orig_argv[1:], *more])


def by_script() -> bool:
    """Return whether the console script started this process."""
    return Path(sys.argv[0]).name == SCRIPT


def prog(module: str) -> str:
    """Return the words that start a command, for its usage line.

    >>> prog("pipelines.receptive_field")
    'python -m pipelines.receptive_field'
    """
    if by_script():
        return f"{SCRIPT} {module.rpartition('.')[2].replace('_', '-')}"
    return f"python -m {module}"


def join(words: Iterable[str]) -> str:
    r"""Quote words for a shell, those with bytes that are not UTF-8 for bash or zsh.

    >>> print(join(["python", "a b", "caf\udce9's"]))
    python 'a b' $'caf\xe9\x27s'
    """
    return " ".join(map(_quote, words))


def _quote(word: str) -> str:
    data = os.fsencode(word)
    try:
        data.decode()
        return shlex.quote(word)
    except UnicodeDecodeError:
        shown = re.sub(rb"[^\w./= -]", lambda found: b"\\x%02x" % found[0][0], data)
        return f"$'{shown.decode()}'"


def commit() -> str | None:
    """Return the toolkit's commit, with "+" if files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions(device: torch.device) -> dict[str, str]:
    """Return the versions of Python and the libraries, the device, and the number of threads."""
    import torch  # takes seconds, and commands need this module before they parse their flags

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    cpu, cuda = device.type == "cpu", device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else device.type
    dist = torch.distributed
    found["device"] = platform.machine() if cpu else name
    found["threads"] = str(torch.get_num_threads())
    found["processes"] = str(dist.get_world_size() if dist.is_initialized() else 1)
    return found
