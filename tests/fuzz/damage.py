"""Ways to damage a file or a folder of a user, each drawn from a seeded generator."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

Damage = Callable[[Path, Random], None]

JSON_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 10**400, 1e308, float("nan"), "", "x", "\x1b[2J", "\udcff", []),
    *([1, -1, 0], {}, {"a": 1}, [[[]]], "../../etc/passwd", 2**63),
]


def empty(path: Path, draw: Random) -> None:
    path.write_bytes(b"")


def truncate(path: Path, draw: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(1, len(data)))])


def flip(path: Path, draw: Random) -> None:
    data = bytearray(path.read_bytes())
    near = draw.choice([len(data), min(len(data), 200)])  # headers are short
    for _ in range(draw.choice([1, 1, 8])):
        if near:
            data[draw.randrange(near)] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def append(path: Path, draw: Random) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.choice([1, 7, 1000])))


def garbage(path: Path, draw: Random) -> None:
    path.write_bytes(draw.randbytes(draw.choice([1, 100, 5000])))


def remove(path: Path, draw: Random) -> None:
    path.unlink()


def to_folder(path: Path, draw: Random) -> None:
    path.unlink()
    path.mkdir()


def to_loop(path: Path, draw: Random) -> None:
    path.unlink()
    os.symlink(path.name, path)


def to_broken_link(path: Path, draw: Random) -> None:
    path.unlink()
    os.symlink("nowhere", path)


def to_pickle(path: Path, draw: Random) -> None:
    path.write_bytes(pickle.dumps({"step": 1, "x": [1.0]}))


def edit_json(path: Path, draw: Random) -> None:
    """Give a field somewhere in the file another value, or take it away."""
    text = path.read_text().splitlines()
    whole = path.suffix == ".json"
    place = 0 if whole else draw.randrange(len(text))
    record = json.loads(path.read_text() if whole else text[place])
    at = record
    while True:
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not (isinstance(at[key], (dict, list)) and at[key] and draw.random() < 0.7):
            break
        at = at[key]
    if draw.random() < 0.25:
        del at[key]
    else:
        at[key] = draw.choice(JSON_VALUES)
    new = json.dumps(record)
    path.write_text(new if whole else "\n".join([*text[:place], new, *text[place + 1 :]]) + "\n")


def other_json(path: Path, draw: Random) -> None:
    path.write_text(
        draw.choice(["[]", "{}", "null", "3", '"x"', "[" * 100_000, '{"a": 1e999}', "\n"])
    )


def any_array(draw: Random) -> np.ndarray:
    """Return an array that is rarely of the wanted type, shape and levels."""
    shape = draw.choice([
        (), (0,), (6,), (6, 8), (6, 8, 8), (6, 1, 8, 8), (6, 8, 8, 1), (6, 3, 8, 8), (0, 1, 8, 8),
        (0, 8, 8), (6, 0, 8), (1, 1, 8, 8), (24, 7, 8), (2, 2, 2, 2, 2), (40,), (6, 1, 1, 1),
    ])  # fmt: skip
    kind = draw.choice([
        "uint8", "int8", "int64", "uint64", "uint16", "float32", "float64", "float16", "bool",
        "complex64", "U3", "S2", "O", "M8[s]", "V4",
    ])  # fmt: skip
    value = draw.choice([0, 1, 16, 17, 255, -1, 2**40, 0.5, np.nan, np.inf])
    if kind == "O":
        array = np.empty(shape, dtype=object)
        array[...] = value
        return array
    with np.errstate(all="ignore"):
        try:
            return np.full(shape, value).astype(kind)
        except (ValueError, OverflowError, TypeError):
            return np.zeros(shape, dtype=kind)


def other_array(path: Path, draw: Random) -> None:
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        for name in draw.sample(sorted(arrays), draw.choice([1, 1, 2, len(arrays)])):
            if draw.random() < 0.3:
                del arrays[name]
            else:
                arrays[draw.choice([name, name, name, "valid", "extra", ""])] = any_array(draw)
        np.savez(path, **arrays)
        return
    with path.open("wb") as file:
        np.save(file, any_array(draw), allow_pickle=True)


def lying_header(path: Path, draw: Random) -> None:
    """Let an .npy claim another shape, type or order than it holds."""
    if path.suffix == ".npz":
        flip(path, draw)
        return
    shape = draw.choice(
        ["(6, 8, 8)", "(10**12,)", "(99999999999, 8, 8)", "(-1, 8)", "()", "(6,", "6"]
    )
    descr = draw.choice(["'|u1'", "'<f8'", "'|O'", "[('a', '<i4')]", "'nonsense'", "None"])
    order = draw.choice(["True", "False", "3"])
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = header.encode().ljust(118) + b"\n"
    data = path.read_bytes()[128:]
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


def odd_picture(path: Path, draw: Random) -> None:
    """Put a picture of another mode, size or format in the place of one."""
    mode = draw.choice(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
    size = draw.choice([(8, 8), (8, 8), (1, 1), (9, 8), (300, 2)])
    buffer = io.BytesIO()
    picture = Image.new(mode, size)
    format_ = draw.choice(["PNG", "GIF", "TIFF", "JPEG", "BMP", "WEBP"])
    try:
        picture.save(buffer, format=format_)
    except (OSError, ValueError):
        buffer = io.BytesIO()
        Image.new("RGBA", size).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue())


def many_frames(path: Path, draw: Random) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (0, 99)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def remove_folder(path: Path, draw: Random) -> None:
    shutil.rmtree(path)
    if draw.random() < 0.5:
        path.mkdir()


def stray(path: Path, draw: Random) -> None:
    """Add files that nobody asked for."""
    (
        path / draw.choice(["x.txt", ".hidden.png", "._0.png", "\udcff.png", "a\nb.png", "y.pkl"])
    ).write_bytes(draw.randbytes(30))


def apply(path: Path, draw: Random) -> str:
    """Damage a path in one of its ways; returns the way's name."""
    way = draw.choice(ways(path))
    try:
        way(path, draw)
    except (
        ValueError,
        TypeError,
        EOFError,
        LookupError,
        zipfile.BadZipFile,
    ):  # it was damaged before
        way = garbage
        way(path, draw)
    return way.__name__


BYTES: list[Damage] = [empty, truncate, flip, append, garbage, remove, to_folder, to_loop]
BYTES += [to_broken_link, to_pickle]


def ways(path: Path) -> list[Damage]:
    """Return the ways to damage a path."""
    if path.is_dir():
        return [remove_folder, stray]
    special: dict[str, list[Damage]] = {
        ".json": [edit_json, edit_json, edit_json, other_json],
        ".jsonl": [edit_json, other_json],
        ".npy": [other_array, other_array, other_array, lying_header, lying_header],
        ".npz": [other_array, other_array, other_array, lying_header],
        ".png": [odd_picture, odd_picture, many_frames],
    }
    own = special.get(path.suffix, [flip])
    return own * max(1, len(BYTES) // len(own)) + BYTES  # half of the draws
