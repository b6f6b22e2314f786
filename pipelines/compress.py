"""Compress images without loss by a trained model, and get them back: what bits/dim is in bytes.

"RUN_DIR encode IMAGES.npy FILE" writes a file, "RUN_DIR decode FILE IMAGES.npy" reads it, and
"RUN_DIR export IMAGES.npy" writes the run's test images, to try it on.

IMAGES.npy holds uint8 levels (N, C, H, W). A file can be read only with the very architecture and
weights that wrote it, wherever the run is by then. In float64 it can nearly always be read with
another number of threads or on another machine; in float32, about twice as fast, only with the same
kernels as those that wrote it. Either way a checksum tells whether the images are those that were
encoded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from decoders.coding import CodingError
from pipelines.compression import codecs, container, formats, identity, npy
from pipelines.compression.container import Header
from pipelines.data.levels import append_levels
from pipelines.data.sets import DataError
from pipelines.model import Model
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.pictures import count_rows
from pipelines.runtime.command import exit_codes
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import expanded, refuse_existing
from pipelines.runtime.progress import Progress
from pipelines.runtime.provenance import prog

TAPE_BYTES = 256 * 2**20  # of probabilities that bits-back coding holds for a batch


@dataclass(frozen=True)
class Encode:
    """Images to a file; prints what the model, the file and other formats take."""

    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES.npy")]
    """Levels (N, C, H, W), uint8, or int64 of more than 256; (N, H, W) or (N, H, W, C) where that
    can mean nothing else."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The file to write."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="LABELS.npy")] = None
    """Labels (N,) as .npy, for a model given labels; they are stored, and counted."""
    bits_back: bool = False
    """Code a model with latent variables by bits-back coding."""
    batch_size: int = 64
    """Images coded side by side; of bits-back coding's, fewer waste fewer initial bits."""
    precision: Literal["float64", "float32"] = "float64"
    """Arithmetic of the network: float32 is faster, and more tied to this machine."""
    compare: bool = True
    """Show what PNG, WebP and JPEG XL take."""


@dataclass(frozen=True)
class Decode:
    """A file back to its images."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """What encode wrote."""
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES.npy")]
    """The .npy to write, of the layout that was encoded; it carries the number of levels."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="LABELS.npy")] = None
    """Where to write the labels, as .npy."""


@dataclass(frozen=True)
class Export:
    """The run's test images as a file to encode."""

    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES.npy")]
    """The .npy to write; it carries the number of levels."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="LABELS.npy")] = None
    """Where to write the labels, as .npy."""
    num: int = 0
    """How many, from the first on (0: all)."""
    data_dir: str = ""
    """Where the data set is now (default: where it was in training)."""


@dataclass(frozen=True)
class Config:
    """What to do with which run."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    action: (
        Annotated[Encode, tyro.conf.subcommand("encode")]
        | Annotated[Decode, tyro.conf.subcommand("decode")]
        | Annotated[Export, tyro.conf.subcommand("export")]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = tyro.cli(
            Config,
            args=argv,
            prog=prog("pipelines.compress"),
            description=__doc__,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
        config = expanded(config)
        run, action = open_run(config.run_dir), expanded(config.action)
        with one_thread():
            if isinstance(action, Encode):
                encode(run, config.run_dir, action)
            elif isinstance(action, Decode):
                decode(run, config.run_dir, action)
            else:
                export(run, action)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, so that sums are in one order; the small steps of a scan gain none by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def encode(run: Run, run_dir: Path, config: Encode) -> None:
    """Write the file, and print what it took."""
    method = codecs.method_of(run.model, bits_back=config.bits_back)
    refuse_existing(config.file)
    images, layout = npy.read_images(config.images, run.spec.image_shape, run.spec.num_levels)
    labels = _labels(config.labels, run.model, len(images))
    batch = _batch_size(config.batch_size, images, method, run.spec.num_levels)
    header = Header(
        method=method,
        precision=config.precision,
        layout=layout,
        num_levels=run.spec.num_levels,
        image_shape=run.spec.image_shape,
        count=len(images),
        batch=batch,
        model=identity.weights(run_dir),
        written_with=written_with(),
        architecture=identity.architecture(run),
    )
    digest = hashlib.sha256()
    for start, end in codecs.spans(header):
        digest.update(np.ascontiguousarray(images[start:end]).data)
    model = _in_precision(run.model, config.precision)

    def read(start: int, end: int) -> tuple[Tensor, Tensor | None]:
        x = torch.from_numpy(np.array(images[start:end], order="C"))
        return x, None if labels is None else torch.from_numpy(labels[start:end])

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
    with whole_file(config.file) as stream:
        stream.write(content)
    print(_report(config, header, encoded, images, len(content)))


def decode(run: Run, run_dir: Path, config: Decode) -> None:
    """Write the images of a file."""
    refuse_existing(config.images, config.labels)
    header, words = container.from_file(config.file)
    same = identity.check_model(header, run, config.file, run_dir)
    if config.labels is not None and header.method != "given label":
        raise UserError(f"{config.file} holds no labels: leave --labels out")
    model = _in_precision(run.model, header.precision)
    digest = hashlib.sha256()
    labels: list[np.ndarray] = []
    with whole_file(config.images) as stream, _rows(header, "decode") as bar:
        npy.write_header(stream, header.count, header.image_shape, header.num_levels, header.layout)
        try:
            for x, y in codecs.decode(model, header, words, count_rows(bar)):
                digest.update(x.numpy().data)
                stream.write(npy.laid_out(x.numpy(), header.layout).data)
                labels += [] if y is None else [y.numpy()]
            append_levels(stream, header.num_levels)
        except CodingError as error:
            raise _undecodable(config.file, header, run_dir, same) from error
        if digest.digest()[: container.DIGITS] != header.images:
            raise _undecodable(config.file, header, run_dir, same)
    if config.labels is not None:
        with whole_file(config.labels) as stream:
            np.save(stream, np.concatenate(labels))
    print(f"{header.count:,} images in {config.images}, as they were encoded")


def export(run: Run, config: Export) -> None:
    """Write the run's test images, and their labels, for a start."""
    refuse_existing(config.images, config.labels)
    if config.num < 0:
        raise UserError(f"expected --num of at least 0, got {config.num}")
    test = load_splits(run, data_dir=config.data_dir).test
    count = min(config.num or len(test), len(test))
    if config.labels is not None and test.labels is None:
        raise UserError(f"{test.name} has no labels: leave --labels out")
    with whole_file(config.images) as stream:
        npy.write_header(stream, count, test.image_shape, test.num_levels)
        for start in range(0, count, 1024):
            x = test.batch(np.arange(start, min(start + 1024, count))).x
            stream.write(x.numpy().data)
        append_levels(stream, test.num_levels)
    if config.labels is not None and test.labels is not None:
        with whole_file(config.labels) as stream:
            np.save(stream, np.asarray(test.labels[:count], dtype=np.int64))
    print(f"{count:,} test images of {test.name} in {config.images}")


def _labels(file: Path | None, model: Model, count: int) -> np.ndarray | None:
    """The labels (N,) that a model given labels needs; None for any other model."""
    if not model.num_classes:
        if file is not None:
            raise UserError(f"--labels is for a model given labels, this one is {model.kind!r}")
        return None
    if file is None:
        raise UserError("this model is given labels: name them by --labels LABELS.npy")
    return npy.read_labels(file, count, model.num_classes)


def _batch_size(asked: int, images: np.ndarray, method: str, num_levels: int) -> int:
    if asked < 1:
        raise UserError(f"expected --batch-size of at least 1, got {asked}")
    size = min(asked, len(images))
    if method == "bits-back":
        size = min(size, max(1, TAPE_BYTES // (8 * num_levels * images[0].size)))
    return size


def written_with() -> str:
    """What decides the last digits of sums: the version of torch, and the instructions it uses."""
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"[:24]


def _undecodable(file: Path, header: Header, run_dir: Path, same: bool) -> DataError:
    """Say that the images would not be those that were encoded, and why."""
    other = "" if same else f"it was written with another model than that of {run_dir}, or "
    return DataError(
        f"{file} cannot be decoded here: {other}it was written in {header.precision} with torch "
        f"{header.written_with}, this is {written_with()}, whose sums differ in their last digits; "
        "decode it where it was written"
    )


def _in_precision(model: Model, precision: str) -> Model:
    return model.cpu().to(torch.float64 if precision == "float64" else torch.float32)


def _rows(header: Header, label: str) -> Progress:
    total = len(codecs.spans(header)) * header.image_shape[1]
    return Progress(total, label, unit="row")


def _report(
    config: Encode, header: Header, encoded: codecs.Encoded, images: np.ndarray, file_bytes: int
) -> str:
    """What the images take, in bytes and bits/dim: by the model, in the file, in other formats."""
    dims = images.size

    def line(label: str, size: float | None, more: str = "") -> str:
        if size is None:
            return f"  {label:<34}{more}"
        return f"  {label:<34}{math.ceil(size):>13,} bytes {8 * size / dims:>9.4f}{more}"

    shape = "×".join(map(str, header.image_shape))
    kind = "the model's bound" if header.method == "bits-back" else "the model's NLL"
    lines = [
        f"{header.count:,} images of {shape}, {header.num_levels} levels, in {config.file}",
        f"  {'':<34}{'':>19} bits/dim",
        line(kind, encoded.model_bits / 8),
        line("the file's content", 4 * len(encoded.words)),
        line("the file, header included", file_bytes),
    ]
    if encoded.side_bits:
        what = header.method.removeprefix("given ")
        lines.append(line(f"  of which {what}s", encoded.side_bits / 8))
    if encoded.initial_words:
        lines.append(line("  of which bits to begin with", 4 * encoded.initial_words))
    for rival in formats.sizes(images, header.num_levels) if config.compare else ():
        if rival.each is None and rival.note:
            lines.append(line(rival.name, None, rival.note))
            continue
        lines.append(line(f"{rival.name}, a file each", rival.each, ""))
        lines.append(line(f"{rival.name}, one sheet", rival.sheet, ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
