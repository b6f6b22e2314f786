"""Lossless compression by a run's model: images to a file, a file to images."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from decoders.coding import CodingError
from pipelines.compression import codecs, container, formats, npy
from pipelines.compression.container import Header
from pipelines.data.levels import append_levels
from pipelines.model import Model
from pipelines.runs import model_identity
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import load_splits, open_run
from pipelines.runs.pictures import count_rows
from pipelines.runtime.errors import DataError, UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import refuse_existing
from pipelines.runtime.progress import Progress

TAPE_BYTES = 256 * 2**20  # limit of the probabilities that bits-back coding holds for a batch


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: sums have one order, and the small steps of a scan gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def encode(
    run: str | Path,
    *,
    images: Path,
    file: Path,
    labels: Path | None = None,
    bits_back: bool = False,
    score_batch: int = 64,
    precision: Literal["float64", "float32"] = "float64",
    compare: bool = True,
    trust: Sequence[str] = (),
) -> Findings:
    """Encode images as a compressed file.

    The arguments are the flags of `pixel-decoders compress RUN encode`.

    Returns:
        Table of sizes.

    Raises:
        UserError: the arguments don't fit one another, the model or the images.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    method = codecs.method_of(opened.model, bits_back=bits_back)
    refuse_existing(file)
    spec = opened.spec
    x, layout = npy.read_images(images, spec.image_shape, spec.num_levels)
    y = _labels(labels, opened.model, len(x))
    header = Header(
        method=method,
        precision=precision,
        layout=layout,
        num_levels=spec.num_levels,
        image_shape=spec.image_shape,
        count=len(x),
        batch=_batch_size(score_batch, x, method, spec.num_levels),
        model=model_identity.weights(run_dir),
        written_with=written_with(),
        architecture=model_identity.architecture(opened),
    )
    digest = hashlib.sha256()
    for start, end in codecs.spans(header):
        digest.update(np.ascontiguousarray(x[start:end]).data)
    model = _in_precision(opened.model, precision)

    def read(start: int, end: int) -> tuple[Tensor, Tensor | None]:
        part = torch.from_numpy(np.array(x[start:end], order="C"))
        return part, None if y is None else torch.from_numpy(y[start:end])

    with _rows(header, "encode") as bar:
        try:
            encoded = codecs.encode(model, header, read, count_rows(bar))
        except CodingError as error:
            raise UserError(str(error)) from error
    header = dataclasses.replace(
        header,
        images=digest.digest()[: container.DIGITS],
        initial_words=encoded.initial_words,
        grid=encoded.grid,
    )
    content = container.to_bytes(header, encoded.words)
    with whole_file(file) as stream:
        stream.write(content)
    return Findings(_report(file, header, encoded, x, len(content), compare=compare))


@one_thread()
def decode(
    run: str | Path,
    *,
    file: Path,
    images: Path,
    labels: Path | None = None,
    trust: Sequence[str] = (),
) -> Findings:
    """Decode the images of a compressed file.

    The arguments are the flags of `pixel-decoders compress RUN decode`.

    Raises:
        UserError: the file was written with another model, or can't be decoded on this machine.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    refuse_existing(images, labels)
    header, words = container.from_file(file)
    same = model_identity.check_model(header, opened, file, run_dir)
    if labels is not None and header.method != "given label":
        raise UserError(f"{file} has no labels: leave --labels out")
    model = _in_precision(opened.model, header.precision)
    digest = hashlib.sha256()
    found: list[np.ndarray] = []
    with whole_file(images) as stream, _rows(header, "decode") as bar:
        npy.write_header(stream, header.count, header.image_shape, header.num_levels, header.layout)
        try:
            for x, y in codecs.decode(model, header, words, count_rows(bar)):
                digest.update(x.numpy().data)
                stream.write(npy.laid_out(x.numpy(), header.layout).data)
                found += [] if y is None else [y.numpy()]
            append_levels(stream, header.num_levels)
        except CodingError as error:
            raise _undecodable(file, header, run_dir, same) from error
        if digest.digest()[: container.DIGITS] != header.images:
            raise _undecodable(file, header, run_dir, same)
    if labels is not None:
        with whole_file(labels) as stream:
            np.save(stream, np.concatenate(found))
    return Findings(f"{header.count:,} images in {images}, as they were encoded")


def export(
    run: str | Path,
    *,
    images: Path,
    labels: Path | None = None,
    num: int = 0,
    data_dir: str = "",
    trust: Sequence[str] = (),
) -> Findings:
    """Write a run's test images, and their labels, as files to encode.

    The arguments are the flags of `pixel-decoders compress RUN export`.

    Raises:
        UserError: the images are not found, or they have no labels.
    """
    opened = open_run(find_run(run), trust)
    refuse_existing(images, labels)
    test = load_splits(opened, data_dir=data_dir).test
    count = min(num or len(test), len(test))
    if labels is not None and test.labels is None:
        raise UserError(f"{test.name} has no labels: leave --labels out")
    with whole_file(images) as stream:
        npy.write_header(stream, count, test.image_shape, test.num_levels)
        for start in range(0, count, 1024):
            x = test.batch(np.arange(start, min(start + 1024, count))).x
            stream.write(x.numpy().data)
        append_levels(stream, test.num_levels)
    if labels is not None and test.labels is not None:
        with whole_file(labels) as stream:
            np.save(stream, np.asarray(test.labels[:count], dtype=np.int64))
    return Findings(f"{count:,} test images of {test.name} in {images}")


def _labels(file: Path | None, model: Model, count: int) -> np.ndarray | None:
    """Return the labels (N,) for a model that is given labels; None for any other model."""
    if not model.num_classes:
        if file is not None:
            raise UserError(f"--labels is for a model given labels, this one is {model.kind!r}")
        return None
    if file is None:
        raise UserError("this model is given labels: give --labels LABELS.npy")
    return npy.read_labels(file, count, model.num_classes)


def _batch_size(asked: int, images: np.ndarray, method: str, num_levels: int) -> int:
    size = min(asked, len(images))
    if method == "bits-back":
        size = min(size, max(1, TAPE_BYTES // (8 * num_levels * images[0].size)))
    return size


def written_with() -> str:
    """Return torch's version and instruction set, which decide the last digits of sums."""
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"[:24]


def _undecodable(file: Path, header: Header, run_dir: Path, same: bool) -> DataError:
    """Return the error for a file whose decoded images differ from the encoded ones."""
    other = "" if same else f"it was written with another model than that of {run_dir}, or "
    return DataError(
        f"{file} cannot be decoded here: {other}it was written in {header.precision} with torch "
        f"{header.written_with}, this is {written_with()}, whose sums differ in their last digits: "
        "decode it where it was written"
    )


def _in_precision(model: Model, precision: str) -> Model:
    return model.cpu().to(torch.float64 if precision == "float64" else torch.float32)


def _rows(header: Header, label: str) -> Progress:
    total = len(codecs.spans(header)) * header.image_shape[1]
    return Progress(total, label, unit="row")


def _report(
    file: Path,
    header: Header,
    encoded: codecs.Encoded,
    images: np.ndarray,
    file_bytes: int,
    *,
    compare: bool,
) -> str:
    """Return a table of sizes in bytes and bits/dim: the model's, the file's, other formats'."""
    dims = images.size

    def line(label: str, size: float | None, more: str = "") -> str:
        if size is None:
            return f"  {label:<34}{more}"
        return f"  {label:<34}{math.ceil(size):>13,} bytes {8 * size / dims:>9.4f}{more}"

    shape = "×".join(map(str, header.image_shape))
    kind = "the model's bound" if header.method == "bits-back" else "the model's NLL"
    lines = [
        f"{header.count:,} images of {shape}, {header.num_levels} levels, in {file}",
        f"  {'':<34}{'':>19} bits/dim",
        line(kind, encoded.model_bits / 8),
        line("the file's content", 4 * len(encoded.words)),
        line("the file, header included", file_bytes),
    ]
    if encoded.side_bits:
        what = header.method.removeprefix("given ")
        lines.append(line(f"  of which {what}s", encoded.side_bits / 8))
    if encoded.initial_words:
        lines.append(line("  of which initial bits", 4 * encoded.initial_words))
    for other in formats.sizes(images, header.num_levels) if compare else ():
        if other.each is None and other.note:
            lines.append(line(other.name, None, other.note))
            continue
        lines.append(line(f"{other.name}, a file each", other.each, ""))
        lines.append(line(f"{other.name}, one sheet", other.sheet, ""))
    return "\n".join(lines)
