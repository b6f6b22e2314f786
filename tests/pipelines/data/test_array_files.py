"""Array files that nobody vouches for: one sentence each, no memory unseen, no value changed."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.data import array_files
from pipelines.data.array_files import map_npy, read_npz, read_pickle
from pipelines.data.sets import DataConfig, load
from pipelines.runtime.errors import DataError

TERABYTE = 1 << 40


def npy_bytes(array: np.ndarray, shape: tuple | None = None) -> bytes:
    """An array in npy format, perhaps with a header that claims another shape."""
    file = io.BytesIO()
    about = {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue() + array.tobytes()


def test_an_npz_that_claims_terabytes_asks_for_no_memory(tmp_path: Path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", npy_bytes(np.zeros(8, np.uint8), (TERABYTE,)))
    with pytest.raises(DataError, match=r"own\.npz is damaged.*'train' does not have the 1,099,5"):
        read_npz(path)


def test_an_npz_larger_than_memory_is_refused_with_the_cure(tmp_path: Path, monkeypatch):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, train=np.zeros((1000, 64, 64), np.uint8))
    monkeypatch.setattr(array_files, "free_memory", lambda: 1 << 20)
    with pytest.raises(DataError, match=r"own\.npz need .* GiB of memory, and .* free: .*\.npy"):
        read_npz(path)
    assert len(read_npz(path, "test")) == 0, "what is not asked for is not counted"


def test_a_gzip_that_unpacks_to_more_than_its_header_says_is_damaged(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        for kind, shape in (("images-idx3", (2, 28, 28)), ("labels-idx1", (2,))):
            head = b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
            content = head + bytes(int(np.prod(shape)))
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    load(DataConfig("mnist", str(tmp_path)))
    path = raw / "t10k-images-idx3-ubyte.gz"
    head = b"\0\0\x08\x03" + np.array((2, 28, 28), ">u4").tobytes()
    path.write_bytes(gzip.compress(head + bytes(1 << 24)))
    with pytest.raises(DataError, match=r"t10k-images.*gz is damaged .*not hold 2 x 28 x 28"):
        load(DataConfig("mnist", str(tmp_path)))
    head = b"\0\0\x08\x03" + np.array((1 << 30, 1 << 30, 1 << 30), ">u4").tobytes()
    path.write_bytes(gzip.compress(head))
    with pytest.raises(DataError, match=r"t10k-images.*gz need .* GiB"):
        load(DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("shape", [(TERABYTE,), (-4,), (-2, -2), (2**40, 2**40)])
def test_an_npy_of_an_impossible_shape_is_damaged(tmp_path: Path, shape: tuple):
    path = tmp_path / "train.npy"
    path.write_bytes(npy_bytes(np.zeros(4, np.uint8), shape))
    with pytest.raises(DataError, match=r"train\.npy is damaged"):
        map_npy(path)


def test_every_shortened_or_altered_file_ends_in_one_sentence(tmp_path: Path):
    """Not in one of the dozen exceptions of zipfile, zlib, ast, tokenize and NumPy."""
    arrays = {"train": np.zeros((4, 4, 4), np.uint8), "test": np.ones((2, 4, 4), np.uint8)}
    npz, npy, pkl = (tmp_path / f"a.{kind}" for kind in ("npz", "npy", "pkl"))
    np.savez_compressed(npz, **arrays)
    np.save(npy, arrays["train"])
    pkl.write_bytes(pickle.dumps(arrays))
    draws = np.random.default_rng(0)
    for path, read in ((npz, read_npz), (npy, map_npy), (pkl, read_pickle)):
        whole = path.read_bytes()
        for number in range(150):
            content = bytearray(whole)
            if number % 3 == 0:
                content = content[: draws.integers(len(whole))]
            else:
                for at in draws.integers(len(whole), size=number % 3):
                    content[at] = draws.integers(256)
            path.write_bytes(content)
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("content", [b"(" * 9000 + b")" * 9000, b"{'descr': '|u1'", b"\xff\xfe"])
def test_a_header_that_is_no_header_is_damaged(tmp_path: Path, content: bytes):
    path = tmp_path / "train.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content)
    with pytest.raises(DataError, match=r"train\.npy is damaged"):
        map_npy(path)


class _Ask:
    """Pickles as a call of a function that pickles of arrays use, perhaps with a state to set."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


POINTERS = (3, "|", None, None, None, -1, -1, 0x3F)  # a type's flags: its values are objects
ASKS = {
    "memory, made": _Ask(np.empty(0).__reduce__()[0], (np.ndarray, (TERABYTE,), b"b")),
    "memory, called": _Ask(np.ndarray, (TERABYTE, np.dtype("u1"))),
    "objects": np.array([{}, 1], dtype=object),
    "flags": _Ask(np.dtype, ("u1", False, True), POINTERS),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_pickle_asks_for_nothing_but_numbers(tmp_path: Path, ask: object):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"train": ask}))
    with pytest.raises(DataError, match=r"a\.pkl is not a"):
        read_pickle(path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read .*none\.npz: No such file"):
        read_npz(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        map_npy(tmp_path)


@pytest.mark.parametrize("value", [0.5, np.nan, -1, 2, 1e-9, -0.4])
def test_binarized_mnist_is_zeros_and_ones_or_refused(tmp_path: Path, value: float):
    rows = np.zeros((3, 784))
    arrays = {"train": rows, "valid": rows, "test": rows.copy()}
    arrays["test"][1, 5] = 1.0
    path = tmp_path / "binarized_mnist.npz"
    np.savez(path, **arrays)
    x = load(DataConfig("binarized_mnist", str(tmp_path))).test.batch(np.arange(3)).x
    assert x.sum() == x[1, 0, 0, 5] == 1
    arrays["test"][1, 5] = value
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"binarized_mnist\.npz .*zeros and ones"):
        load(DataConfig("binarized_mnist", str(tmp_path)))
