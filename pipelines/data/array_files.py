"""Readers of untrusted array files: npz, npy, gzip and pickles of arrays.

No reader runs code that a file brings, and none asks for memory before the header of an array has
said how much it needs. Whatever a library raises for a damaged file becomes one `DataError`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from pipelines.runtime.errors import DataError

T = TypeVar("T")

_NOT_PLAIN = "is damaged, or holds pickled objects, which are not loaded"
_MAPPED = "use fewer images, or save the arrays as .npy files, which --data npy maps into memory"


class Header(NamedTuple):
    """Header of an array in npy format."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Size of the values that follow, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def guarded(
    path: Path,
    read: Callable[[Path], T],
    damaged: str = "is damaged",
    cure: str = "delete it and fetch it again",
) -> T:
    """Return `read(path)`; whatever it raises becomes one sentence that names the file.

    Args:
        path: a file.
        read: reads it.
        damaged: says that its content cannot be read; the reason follows.
        cure: says what to do about that.

    Raises:
        DataError: the file cannot be opened, is damaged, or needs more memory than there is.
    """
    try:
        return read(path)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is: {_MAPPED}") from error
    except Exception as error:  # zipfile, zlib, pickle and NumPy raise a dozen kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        raise DataError(f"{path} {damaged} ({error or type(error).__name__}): {cure}") from error


def check_memory(name: str, size: int) -> None:
    """Raise a DataError unless `size` bytes of memory are free for these arrays."""
    free = free_memory()
    if size > free:
        raise DataError(
            f"{name} need {size / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free: "
            f"{_MAPPED}"
        )


def free_memory() -> int:
    """Return the memory in bytes that this process may still use, as far as the system tells."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(s.split()[1]) for s in lines if s.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):  # a container's limit, "max" where it has none
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free


def read_header(file: IO[bytes]) -> Header:
    """Read the header of an array in npy format, up to where the values begin.

    Raises:
        ValueError: it is not one, or its values are Python objects.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    header = Header(*read(file))
    if header.dtype.hasobject:
        raise ValueError("its values are Python objects")
    if min(header.shape, default=0) < 0:
        raise ValueError(f"its shape is {header.shape}")
    return header


def read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz, all or those of these names; pickled objects are never loaded.

    Raises:
        DataError: the file is damaged, holds anything but plain arrays, or needs more memory than
            there is.
    """
    return guarded(
        path, partial(_read_npz, names=names), _NOT_PLAIN, "save plain arrays by np.savez"
    )


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name != info.filename and (not names or name in names):
                members[name] = info
        check_memory(
            f"the arrays of {path}", sum(_unpacked(archive, *member) for member in members.items())
        )
        arrays = {}
        for name, info in members.items():
            with archive.open(info) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def _unpacked(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> int:
    """Return the size of an array in an npz from its header, which the archive must confirm."""
    with archive.open(info) as file:
        header = read_header(file)
        if file.tell() + header.size != info.file_size:
            raise ValueError(f"'{name}' does not have the {header.size:,} bytes of its shape")
    return header.size


def map_npy(path: Path) -> np.ndarray:
    """Map the array of an npy into memory, read-only, for reading in random order.

    Raises:
        DataError: the file is damaged, or holds anything but a plain array
    """
    return guarded(path, _map_npy, _NOT_PLAIN, "save a plain array by np.save")


def _map_npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        header = read_header(file)
        offset, count = file.tell(), math.prod(header.shape)
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(buffer) < offset + header.size:
        raise ValueError(f"it ends before its {count:,} values do")
    if hasattr(buffer, "madvise"):  # otherwise every image reads megabytes of its neighbors
        buffer.madvise(mmap.MADV_RANDOM)
    empty = np.empty(0, header.dtype)
    values = np.frombuffer(buffer, header.dtype, count, offset) if count else empty
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def whole_numbers(path: Path | str, name: str, values: np.ndarray) -> np.ndarray:
    """Return integers as they are, and floats as int64 where every one is a whole number.

    Raises:
        DataError: some are not, such as 0.5 or NaN.
    """
    if values.dtype.kind in "iub":
        return values
    if values.dtype.kind == "f":
        wrong = ~(np.abs(values) < 2.0**53) | (values != np.floor(values))
        if not wrong.any():
            return values.astype(np.int64)
        found = f"{values.dtype} with values such as {values[wrong].flat[0]}"
    else:
        found = str(values.dtype)
    raise DataError(f"{path}: '{name}' is {found}, expected integers: convert it")


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a pickled dict. Only arrays of numbers are unpickled.

    Raises:
        DataError: the file is damaged, or holds anything else.
    """
    return guarded(path, _read_pickle, "is not a pickle of arrays alone", "do not use it")


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    check_memory(f"the arrays of {path}", path.stat().st_size)
    with open(path, "rb") as file:
        found = _ArrayUnpickler(file).load()
    if not isinstance(found, dict) or not all(isinstance(one, _Array) for one in found.values()):
        raise DataError(f"{path} is not a dict of plain arrays: expected train, test, *_labels")
    return {str(name): one.values for name, one in found.items()}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays of numbers, and of no other object or function.

    Even NumPy's own functions are replaced: a pickle could call them with any shape, or set the
    flags of a type that say which values are pointers.
    """

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        allowed = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Type,
            ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, type: _Array(),
            ("numpy._core.numeric", "_frombuffer"): _from_buffer,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]


class _Type:
    """Type of an array of numbers, from its name and its pickled state."""

    def __init__(self, name: str, *_: object):
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds values of type {name}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array of numbers, from its pickled state."""

    values: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.values = np.frombuffer(content, kind.dtype).reshape(
            shape, order="F" if fortran else "C"
        )


def _from_buffer(content: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    """Return an array of numbers from the form of protocol 5."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """Return bytes from the form of protocols below 3."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")
