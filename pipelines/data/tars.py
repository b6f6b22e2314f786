"""Images in an uncompressed tar, read in place.

An index file keeps their positions, since finding them takes a pass over the whole tar.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.image_files import EXTENSIONS
from pipelines.data.listing import Listing, say_left_out
from pipelines.runtime.errors import DataError
from pipelines.runtime.files import whole_file

_LINKS = 40  # in a chain, as many as Linux follows
_VERSION = 2  # of the index


def list_tar(path: Path, index: Path) -> Listing:
    """List the images in an uncompressed tar; `index` is the file that keeps their positions.

    Hidden members, such as the `._` files of macOS, are left out; links are followed.

    Raises:
        DataError: the tar is compressed or damaged, or holds no images
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): restore it") from error
    stamp = [_VERSION, status.st_size, status.st_mtime_ns]
    content = _read_index(index)
    if content.get("stamp") != stamp:
        content = {"stamp": stamp, **_read_members(path)}
        index.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(index, replace=True) as file:
            file.write(json.dumps(content).encode())
    say_left_out(path, Counter(content["others"]), len(content["paths"]))
    return Listing(
        path,
        content["paths"],
        np.array(content["sizes"]),
        np.full(len(content["paths"]), status.st_mtime_ns),
        np.array(content["offsets"]),
        faults=content["faults"],
    )


def _read_index(index: Path) -> dict[str, Any]:
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_members(path: Path) -> dict[str, Any]:
    """Return the sorted paths of the images in a tar, their sizes, offsets and faults."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as tar:
            for member in tar:
                if member.size < 0:
                    raise tarfile.TarError(f"{member.name} has a negative size")
                members[posixpath.normpath(member.name)] = member  # the last of a name counts
            _check_end(path, tar.offset)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a whole, uncompressed tar ({error}): fetch it again or unpack it"
        ) from error
    images: list[tuple[str, int, int]] = []
    faults: dict[str, str] = {}
    others: Counter[str] = Counter()
    for name, member in sorted(members.items()):
        ending = posixpath.splitext(name)[1].lower()
        if member.isdir() or any(part.startswith(".") for part in name.split("/")):
            continue
        if ending not in EXTENSIONS:
            others["links" if member.issym() else ending or "without an ending"] += 1
            continue
        target = _behind_links(name, members)
        if target is None or not target.isreg() or target.issparse():
            faults[name] = f"{_fault(member, target)}: unpack the tar or remove it"
            images.append((name, 0, 0))
        else:
            images.append((name, target.size, target.offset_data))
    paths, sizes, offsets = ([one[column] for one in images] for column in range(3))
    columns = {"paths": paths, "sizes": sizes, "offsets": offsets}
    return {**columns, "faults": faults, "others": others}


def _behind_links(name: str, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the member that a name leads to; None if the tar does not contain it."""
    for _ in range(_LINKS):
        member = members.get(name)
        if member is None or not (member.islnk() or member.issym()):
            return member
        folder = posixpath.dirname(name) if member.issym() else ""
        name = posixpath.normpath(posixpath.join(folder, member.linkname))
    return None


def _fault(member: tarfile.TarInfo, target: tarfile.TarInfo | None) -> str:
    if target is None:
        return f"is a link to {member.linkname}, which is not in the tar"
    return "is stored with holes" if target.issparse() else "is not a regular file"


def _check_end(path: Path, end: int) -> None:
    """Refuse a tar that was read in part: `tarfile` takes a bad header for the end."""
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.TarError("it is cut off: the empty blocks at its end are missing")
        if block.strip(b"\0"):
            raise tarfile.TarError(f"byte {end:,} begins no file")
        while block := file.read(1 << 20):
            if block.strip(b"\0"):
                raise tarfile.TarError("another one follows in the same file")
