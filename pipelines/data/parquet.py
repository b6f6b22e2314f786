"""Columns `image` and `label` of parquet files in the layout of Hugging Face.

Images are encoded files (binary, or a struct with `bytes`) or nested lists of levels, (H, W, C).
Needs the extra `parquet`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.image_files import Problem, Rules, UnfitError, decode
from pipelines.runtime.errors import DataError


def open_file(path: Path) -> Any:
    """Open a file with a usable column `image`, as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged or has no such column
    """
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow: pip install 'pixel-decoders[parquet]'") from error
    with _damage_named(path):
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
    if "image" not in names:
        raise DataError(f"{path} has no column 'image' (it has {', '.join(names)}): rename one")
    kind = file.schema_arrow.field("image").type
    if not (_is_encoded(kind) or _is_levels(kind)):
        raise DataError(
            f"{path}: column 'image' is {kind}, expected encoded images (binary, or a struct with "
            "'bytes') or lists of H lists of W lists of C integers: convert it"
        )
    return file


def read_labels(path: Path, file: Any) -> np.ndarray | str | None:
    """Read the column `label` of an open file.

    Returns:
        Labels (N,), int64 or text; None without the column; a sentence on why it is not usable.

    Raises:
        DataError: the file is damaged
    """
    import pyarrow  # pyright: ignore[reportMissingImports]

    if "label" not in file.schema_arrow.names:
        return None
    with _damage_named(path):
        column = file.read(columns=["label"]).column("label")
    kind = column.type.value_type if _types().is_dictionary(column.type) else column.type
    text = _types().is_string(kind) or _types().is_large_string(kind)
    if not text and not _types().is_integer(kind):
        return f"column 'label' of {path.name} is {column.type}, not integers or text"
    if column.null_count:
        return f"{column.null_count:,} rows of {path.name} have no label"
    try:
        column = column.cast(pyarrow.string() if text else pyarrow.int64())
    except pyarrow.ArrowInvalid as error:
        return f"column 'label' of {path.name} is not usable ({error})"
    return np.array(column.to_pylist(), dtype=str if text else np.int64)


def group_images(
    path: Path, group: int, rules: Rules, taken: Sequence[int] | None = None
) -> Iterator[Callable[[], np.ndarray]]:
    """Yield, for every image of a row group, a function that returns its levels (C, H, W), uint8.

    With `taken`, only for the images with these numbers. The functions raise an UnfitError for an
    image that is damaged or breaks the rules.

    Raises:
        UnfitError: the row group is damaged
    """
    from pyarrow import ArrowException, parquet  # pyright: ignore[reportMissingImports]

    try:
        column = parquet.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")
        column = column if taken is None else column.take(list(taken))
    except (ArrowException, OSError, KeyError) as error:
        raise UnfitError(
            Problem("damaged", f"is damaged ({_one_line(error)}): fetch it again")
        ) from error
    for chunk in column.chunks:
        if _is_encoded(chunk.type):
            for value in _bytes(chunk):
                yield lambda value=value: decode(value.as_py() or b"", rules)
        else:
            yield from _each(chunk, rules.shape)


def _each(chunk: Any, shape: tuple[int, int, int]) -> Iterator[Callable[[], np.ndarray]]:
    """Read all lists at once, or one by one if that fails."""
    try:
        for image in _levels(chunk, shape):
            yield lambda image=image: image
    except UnfitError:
        for row in range(len(chunk)):
            yield lambda row=row: _levels(chunk.slice(row, 1), shape)[0]


def _levels(chunk: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Return nested lists (H, W, C), or (H, W) of gray images, as (N, C, H, W) uint8."""
    channels, height, width = shape
    count, sides = len(chunk), []
    while not _types().is_integer(chunk.type):
        if _is_extension(chunk.type):
            chunk = chunk.storage
            continue
        lengths = _compute().unique(_compute().list_value_length(chunk)).to_pylist()
        sides.append(lengths[0] if len(lengths) == 1 else None)
        chunk = chunk.flatten()
    if None in sides or chunk.null_count:
        raise UnfitError(Problem("damaged", "has rows of several lengths, or no levels: fix it"))
    if sides != [height, width, channels] and not (channels == 1 and sides == [height, width]):
        found, expected = ("x".join(map(str, one)) for one in (sides, (height, width, channels)))
        raise UnfitError(Problem("size", f"is {found} levels, not {expected}: resize or remove it"))
    levels = chunk.to_numpy(zero_copy_only=False)
    if levels.size and (levels.min() < 0 or levels.max() > 255):
        found = f"{levels.min()}..{levels.max()}"
        raise UnfitError(Problem("color", f"has levels {found}, not 0..255: convert it to 8 bits"))
    images = levels.reshape(count, height, width, channels).astype(np.uint8)
    return np.moveaxis(images, 3, 1)


def _bytes(chunk: Any) -> Any:
    chunk = chunk.storage if _is_extension(chunk.type) else chunk
    return _compute().struct_field(chunk, "bytes") if _types().is_struct(chunk.type) else chunk


def _is_encoded(kind: Any) -> bool:
    """Return whether a type is binary, or a struct with a binary field `bytes`."""
    kind = kind.storage_type if _is_extension(kind) else kind
    if _types().is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else None
    tests = ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view")
    return kind is not None and any(getattr(_types(), test)(kind) for test in tests)


def _is_levels(kind: Any) -> bool:
    """Return whether a type is lists of lists of integers, two or three deep."""
    depth = 0
    while not _types().is_integer(kind):
        if _is_extension(kind):
            kind = kind.storage_type
        elif any(getattr(_types(), f"is_{one}list")(kind) for one in ("", "large_", "fixed_size_")):
            kind, depth = kind.value_type, depth + 1
        else:
            return False
    return depth in (2, 3)


def _is_extension(kind: Any) -> bool:
    from pyarrow import BaseExtensionType  # pyright: ignore[reportMissingImports]

    return isinstance(kind, BaseExtensionType)


def _compute() -> Any:
    from pyarrow import compute  # pyright: ignore[reportMissingImports]

    return compute


def _types() -> Any:
    from pyarrow import types  # pyright: ignore[reportMissingImports]

    return types


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    from pyarrow import ArrowException  # pyright: ignore[reportMissingImports]

    try:
        yield
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged ({_one_line(error)}): fetch it again") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def joined_labels(labels: dict[str, np.ndarray | str | None]) -> np.ndarray | str | None:
    """Join the labels of all files, or return the reason why they are not usable."""
    reasons = [one for one in labels.values() if isinstance(one, str)]
    known = [one for one in labels.values() if isinstance(one, np.ndarray)]
    if reasons:
        return reasons[0]
    if not known:
        return None
    if len(known) < len(labels):
        without = next(name for name, one in labels.items() if one is None)
        return f"{without} has no column 'label', unlike other files"
    if len({one.dtype.kind for one in known}) > 1:
        return "column 'label' is text in one file and integers in another"
    return np.concatenate(known)
