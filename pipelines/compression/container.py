"""Compressed file of `pipelines.compress`: a header, checksums, and the coder's words.

    magic 4 │ version 1 │ method 1 │ precision 1 │ layout 1 │ levels 2 │ C, H, W 2+2+2 │
    images 8 │ batch 4 │ 32-bit words 8 │ initial words 4 │ weights 16 │ images' checksum 16 │
    written with 24 │ latent cells in a unit 4 │ architecture's bytes 2 │
    checksum of everything else 16 │ the architecture, compressed JSON │ the words

All numbers are little-endian. Checksums are the first bytes of a SHA-256. Version 2 named
some flags otherwise. Version 1 had no cells and no architecture, and its `weights` are a checksum
of the weights and the whole configuration.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.runtime.errors import DataError

MAGIC, VERSION = b"PXD\x1a", 3
METHODS = ("exact", "given label", "given code", "bits-back")
PRECISIONS = ("float32", "float64")
LAYOUTS = ("NCHW", "NHW", "NHWC")
DIGITS = 16  # bytes of a checksum
_FIRST = f"<4s4B4HQIQI{DIGITS}s{DIGITS}s24s"
_FIELDS = {1: struct.Struct(_FIRST)} | dict.fromkeys((2, 3), struct.Struct(_FIRST + "IH"))

# The usual text of an architecture, which therefore takes hardly a byte, by version. Part of the
# format: a change needs another version.
_SECOND = (
    b'{"code_dim":64,"code_dropout":0.0,"color_order":"auto","condition":"none","decoder":"gated",'
    b'"dropout":0.0,"embedding_dim":0,"encoder_blocks":1,"encoder_channels":32,'
    b'"first_kernel_size":7,"head_channels":0,"hidden_channels":64,"kernel_size":5,'
    b'"latent_dim":16,"latent_map":[16,8,8],"latent_to":"layers","levels_of_latents":1,'
    b'"likelihood":"categorical","map_channels":16,"mixtures":10,"num_classes":0,"num_layers":12,'
    b'"num_map_channels":0,"pipeline":"pixelcnn","posterior_scale":"exp","prior_channels":32,'
    b'"prior_layers":3,"residual":true,"weight_norm":false}'
)

_THIRD = (
    b'{"norm":false,"num_blocks":2,"num_components":10,"likelihood":"logistic",'
    b'"encoder_blocks":1,"encoder_channels":32,"encoder_embedding_dim":0,"latent_dim":16,'
    b'"latent_map":[16,8,8],"latent_to":"layers","levels_of_latents":1,"map_channels":16,'
    b'"posterior_scale":"exp","prior_channels":32,"prior_layers":3,'
    b'"code_dim":64,"code_dropout":0.0,"color_order":"auto","condition":"none","decoder":"gated",'
    b'"dropout":0.0,"embedding_dim":0,"first_kernel_size":7,"gated":true,"head_channels":null,'
    b'"hidden_channels":64,"kernel_size":5,"likelihood":"categorical","num_classes":0,'
    b'"num_layers":12,"num_map_channels":0,"pipeline":"pixelcnn","residual":true,'
    b'"resize":"nearest","skip":true,"weight_norm":false}'
)
_USUAL = {2: _SECOND, 3: _THIRD}


@dataclass(frozen=True)
class Header:
    """Header of a compressed file."""

    method: str
    precision: str
    layout: str
    num_levels: int
    image_shape: tuple[int, int, int]
    count: int
    batch: int
    model: bytes  # of the weights
    images: bytes = b""
    initial_words: int = 0
    written_with: str = ""
    words: int = 0
    grid: int = 0  # cells of the latents in a unit
    architecture: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION


def checksum(*parts: bytes) -> bytes:
    """Return the first 16 bytes of a SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()[:DIGITS]


def to_bytes(header: Header, words: np.ndarray) -> bytes:
    """Return the content of a file."""
    architecture = _packed(header.architecture)
    head = _FIELDS[VERSION].pack(
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
        header.grid,
        len(architecture),
    )
    rest = architecture + words.astype("<u4").tobytes()
    return head + checksum(head, rest) + rest


def _packed(architecture: dict[str, Any]) -> bytes:
    text = json.dumps(architecture, sort_keys=True, separators=(",", ":")).encode()
    packer = zlib.compressobj(9, wbits=-15, zdict=_USUAL[VERSION])
    return packer.compress(text) + packer.flush()


def _unpacked(packed: bytes, version: int) -> dict[str, Any]:
    text = zlib.decompressobj(wbits=-15, zdict=_USUAL[version]).decompress(packed, 2**20)
    return dict(json.loads(text))


def from_file(file: Path) -> tuple[Header, np.ndarray]:
    """Return the header of a file and its words, uint32.

    Raises:
        DataError: it can't be read, is not a compressed file, or has changed since it was written.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise DataError(f"{file} is not a file of pipelines.compress, or its start is damaged")
    version = content[len(MAGIC)] if len(content) > len(MAGIC) else VERSION
    if version not in _FIELDS:
        raise DataError(
            f"{file} has format version {version}, expected one up to {VERSION}: it is damaged "
            "or of another version of this toolkit"
        )
    size = _FIELDS[version].size
    head, kept, rest = content[:size], content[size : size + DIGITS], content[size + DIGITS :]
    if len(kept) < DIGITS:
        raise DataError(f"{file} is truncated: it ends within its header")
    fields = _FIELDS[version].unpack(head)
    if checksum(head, rest) != kept:
        expected = 4 * fields[11] + (fields[17] if version > 1 else 0)
        raise DataError(
            f"{file} is truncated: {len(rest):,} bytes of {expected:,} are there"
            if len(rest) < expected < 2**40
            else f"{file} is damaged: its checksum is not that of its content"
        )
    try:
        header, start = _parse(fields, rest)
        return header, np.frombuffer(rest[start:], dtype="<u4").astype(np.uint32)
    except (IndexError, ValueError, zlib.error) as error:  # although its checksum is right
        raise DataError(f"{file} has a header that no version of this toolkit writes") from error


def _parse(fields: tuple[Any, ...], rest: bytes) -> tuple[Header, int]:
    """Return the header, and the position of the words after it."""
    _, version, method, precision, layout, levels, channels, height, width, *more = fields
    count, batch, words, initial_words, model, images, written_with, *second = more
    grid, packed = second or (0, 0)
    header = Header(
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
        grid=grid,
        architecture=_unpacked(rest[:packed], version) if version > 1 else {},
        version=version,
    )
    if count < 1 or batch < 1 or len(rest) != packed + 4 * words:
        raise ValueError("no images")
    return header, packed
