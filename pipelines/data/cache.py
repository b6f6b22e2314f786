"""Folder of packed images: the first one that can be written.

`--cache-dir`, otherwise `.packed` in the data folder, $XDG_CACHE_HOME, ~/.cache, or the system's
folder for temporary files, which exists for a user without a home too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from pipelines.runtime.errors import DataError
from pipelines.runtime.messages import warn

_NAME = "pixel-decoders"


def cache_folders(source: Path, chosen: str = "") -> list[Path]:
    """Return the folders that may hold the packed form of `source`, in order of preference.

    Args:
        source: the folder of the images.
        chosen: value of `--cache-dir`; if given, there is no other folder.
    """
    owner = hashlib.sha256(str(source.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]
    below = f"{source.resolve().name}-{owner}"
    if chosen:
        return [_expanded(chosen) / below]
    bases = []
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():  # the specification ignores others
        bases.append(xdg / _NAME)
    with contextlib.suppress(RuntimeError):  # no HOME, and a user id that nobody knows
        bases.append(Path.home() / ".cache" / _NAME)
    if _is_ours(_temporary()):
        bases.append(_temporary())
    return [source / ".packed", *(base / below for base in bases)]


def cache_folder(source: Path, chosen: str = "") -> Path:
    """Return the first of `cache_folders` that can be written.

    Raises:
        DataError: there is none
    """
    folders = cache_folders(source, chosen)
    for folder in folders:
        if _is_writable(folder):
            if folder.parent == _temporary():
                tried = ", ".join(str(one) for one in folders[:-1])
                warn(f"packed images go to {folder}, since none of {tried} can be written")
            return folder
    tried = ", ".join(map(str, folders))
    raise DataError(
        f"the packed images need a folder that can be written, and none of {tried} can: name "
        "another with --cache-dir"
    )


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"{_NAME}-{user}"


def _is_ours(folder: Path) -> bool:
    """Return True unless another user made this folder, in a place that all can write."""
    try:
        return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
    except OSError:  # there is none yet
        return True


def _expanded(chosen: str) -> Path:
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"--cache-dir {chosen}: there is no home folder, name a full path"
        ) from error


def _is_writable(folder: Path) -> bool:
    """Return whether this folder can be written, or created.

    The permission bits count even for root, who could write into a folder marked read-only.
    """
    bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    try:
        while not folder.exists():
            folder = folder.parent
        return folder.is_dir() and os.access(folder, os.W_OK) and bool(folder.stat().st_mode & bits)
    except OSError:  # a parent that can't be entered
        return False
