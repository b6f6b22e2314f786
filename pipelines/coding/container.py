"""The file that `pipelines.compress` writes: a fixed header, checksums, and the coder's words.

    magic 4 │ version 1 │ method 1 │ precision 1 │ layout 1 │ levels 2 │ C, H, W 2+2+2 │
    images 8 │ batch 4 │ 32-bit words 8 │ initial words 4 │ model 16 │ images' checksum 16 │
    written with 24 │ checksum of all the rest 16 │ the words

All numbers are little-endian. Checksums are the first bytes of a SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.sets import DataError

MAGIC, VERSION = b"PXD\x1a", 1
METHODS = ("exact", "given label", "given code", "bits-back")
PRECISIONS = ("float32", "float64")
LAYOUTS = ("NCHW", "NHW", "NHWC")
DIGITS = 16  # bytes of a checksum
_FIELDS = struct.Struct(f"<4s4B4HQIQI{DIGITS}s{DIGITS}s24s")
HEADER_BYTES = _FIELDS.size + DIGITS


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    method: str
    precision: str
    layout: str
    num_levels: int
    image_shape: tuple[int, int, int]
    count: int
    batch: int
    model: bytes
    images: bytes = b""
    initial_words: int = 0
    written_with: str = ""
    words: int = 0


def checksum(*parts: bytes) -> bytes:
    """The first 16 bytes of a SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()[:DIGITS]


def to_bytes(header: Header, words: np.ndarray) -> bytes:
    """The content of a file."""
    head = _FIELDS.pack(
        MAGIC,
        VERSION,
        METHODS.index(header.method),
        PRECISIONS.index(header.precision),
        LAYOUTS.index(header.layout),
        header.num_levels,
        *header.image_shape,
        header.count,
        header.batch,
        len(words),
        header.initial_words,
        header.model,
        header.images,
        header.written_with.encode("ascii", "replace")[:24],
    )
    body = words.astype("<u4").tobytes()
    return head + checksum(head, body) + body


def from_file(file: Path) -> tuple[Header, np.ndarray]:
    """The header and the words, uint32, of a file.

    Raises:
        DataError: it can't be read, is no such file, or not as it was written.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise DataError(f"{file} is not a file of pipelines.compress, or its start is damaged")
    if len(content) < HEADER_BYTES:
        raise DataError(f"{file} is truncated: it ends within its header")
    if content[len(MAGIC)] != VERSION:
        raise DataError(
            f"{file} has format version {content[len(MAGIC)]}, expected {VERSION}: it is damaged "
            "or of another version of this toolkit"
        )
    head, kept = content[: _FIELDS.size], content[_FIELDS.size : HEADER_BYTES]
    body = content[HEADER_BYTES:]
    if checksum(head, body) != kept:
        words = _FIELDS.unpack(head)[11]
        raise DataError(
            f"{file} is truncated: {len(body):,} bytes of {4 * words:,} are there"
            if len(body) < 4 * words < 2**40
            else f"{file} is damaged: its checksum is not that of its content"
        )
    return _parse(head), np.frombuffer(body, dtype="<u4").astype(np.uint32)


def _parse(head: bytes) -> Header:
    _, _, method, precision, layout, levels, channels, height, width, *rest = _FIELDS.unpack(head)
    count, batch, words, initial_words, model, images, written_with = rest
    return Header(
        method=METHODS[method],
        precision=PRECISIONS[precision],
        layout=LAYOUTS[layout],
        num_levels=levels,
        image_shape=(channels, height, width),
        count=count,
        batch=batch,
        words=words,
        initial_words=initial_words,
        model=model,
        images=images,
        written_with=written_with.rstrip(b"\0").decode("ascii"),
    )


def check_model(header: Header, fingerprint: bytes, file: Path, run_dir: Path) -> None:
    """Raise a DataError unless the file was written with this very model."""
    if header.model != fingerprint:
        raise DataError(
            f"{file} was written with another model than that of {run_dir} (fingerprint "
            f"{header.model.hex()}, this one has {fingerprint.hex()}): name the run it was "
            "encoded with"
        )
