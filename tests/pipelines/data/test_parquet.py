"""Columns of parquet files are read exactly, or refused in one sentence, also from workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data.image_files import Rules
from pipelines.data.listing import list_parquet
from pipelines.data.packing import pack
from pipelines.data.sets import DataConfig, load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.test_tars import png

pyarrow: Any = pytest.importorskip("pyarrow", reason="needs the parquet extra")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")

GRAY = Rules((1, 8, 8))
FILES = [png(level) for level in range(4)]


def write(path: Path, image: Any, group: int = 2, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"image": image, **columns}), path, row_group_size=group)
    return path


def levels(path: Path, **options: Any) -> list[int]:
    listing, _ = list_parquet([path])
    return pack(listing, GRAY, path.with_suffix(""), **options).pixels[:, 0, 0, 0].tolist()


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.struct({"bytes": pyarrow.binary()})]
)
def test_encoded_files_are_read(tmp_path: Path, kind: Any):
    values = [{"bytes": data} for data in FILES] if pyarrow.types.is_struct(kind) else FILES
    assert levels(write(tmp_path / "x.parquet", pyarrow.array(values, kind))) == [0, 1, 2, 3]


def nested(images: np.ndarray, kind: Any = None) -> Any:
    kind = kind or pyarrow.int64()
    for _ in images.shape[1:]:
        kind = pyarrow.list_(kind)
    return pyarrow.array(images.tolist(), kind)


def test_lists_of_levels_are_read(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3))
    fixed = pyarrow.array(
        images.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.uint8(), 3), 8), 8)
    )
    for name, column in (("nested", nested(images)), ("fixed", fixed)):
        listing, _ = list_parquet([write(tmp_path / f"{name}.parquet", column)])
        packed = pack(listing, Rules((3, 8, 8)), tmp_path / name)
        np.testing.assert_array_equal(packed.pixels, np.moveaxis(images, 3, 1))
    gray = write(tmp_path / "gray.parquet", nested(np.full((2, 8, 8), 7)))
    assert levels(gray) == [7, 7]


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (["x.png"] * 2, "string"),
        ([{"path": "x.png"}] * 2, r"struct<path: string>"),
        ([{"bytes": "x.png"}] * 2, r"struct<bytes: string>"),
        ([1, 2], "int64"),
        (nested(np.zeros((2, 64))), r"list<.*int64>"),
        (nested(np.zeros((2, 8, 8, 1)), pyarrow.float64()), r"list<.*double>>>"),
    ],
)
def test_a_column_of_another_type_is_refused_before_packing(tmp_path: Path, column, found: str):
    path = write(tmp_path / "x.parquet", column)
    with pytest.raises(DataError, match=rf"x\.parquet: column 'image' is {found}, expected enc"):
        list_parquet([path])


def lists(**changed: Any) -> list[Any]:
    """Five images of level 1 in lists, of which the third is changed."""
    images: list[Any] = np.ones((5, 8, 8, 1), int).tolist()
    images[2] = changed["to"]
    return images


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([FILES[1], FILES[1], b"junk", FILES[1], FILES[1]], "row 2 is truncated or not an image"),
        ([FILES[1], FILES[1], None, FILES[1], FILES[1]], r"row 2 is empty \(0 bytes\)"),
        (lists(to=np.full((8, 8, 1), 300).tolist()), r"row 2 has levels 300\.\.300, not 0\.\.255"),
        (lists(to=np.full((8, 8, 1), -1).tolist()), r"row 2 has levels -1\.\.-1, not 0\.\.255"),
        (lists(to=np.zeros((8, 4, 1), int).tolist()), r"row 2 is 8x4x1 levels, not 8x8x1"),
        (lists(to=[[[1]] * 8] * 7 + [[[1]] * 7]), "row 2 has rows of several lengths"),
        (lists(to=None), "row 2 has rows of several lengths, or no levels"),
    ],
)
def test_a_damaged_image_is_named_by_its_row_and_can_be_skipped(tmp_path, column, reason):
    path = write(tmp_path / "x.parquet", column, group=3)
    with pytest.raises(DataError, match=rf"x\.parquet: {reason}"):
        levels(path)
    assert levels(path, skip_damaged=True) == [1, 1, 1, 1]


def test_channels_first_is_refused_where_it_could_be_taken_for_channels_last(tmp_path: Path):
    path = write(tmp_path / "x.parquet", nested(np.zeros((2, 3, 8, 8))))
    with pytest.raises(DataError, match=r"row 0 is 3x8x8 levels, not 8x8x3"):
        pack(list_parquet([path])[0], Rules((3, 8, 8)), tmp_path / "set")


def test_a_damaged_row_group_is_named_and_can_be_skipped(tmp_path: Path):
    path = write(tmp_path / "x.parquet", FILES)
    group = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = bytes(group.total_compressed_size)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.parquet: row 2 is damaged \(.*row 3"):
        levels(path)
    assert levels(path, skip_damaged=True) == [0, 1]


def test_damaged_files_are_named(tmp_path: Path):
    path = write(tmp_path / "x.parquet", FILES)
    for content in (b"", b"PAR1junkPAR1", path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet is damaged \("):
            list_parquet([path])
    parquet.write_table(pyarrow.table({"pixels": FILES}), path)
    with pytest.raises(DataError, match=r"has no column 'image' \(it has pixels\)"):
        list_parquet([path])


# ---- labels ------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path):
    """A function that writes train and validation of four images each, with these labels."""
    files = [data for _, data in zip(range(4), _large(), strict=False)]

    def write_shards(train: Any, valid: Any) -> DataConfig:
        for name, split in (("train", train), ("validation", valid)):
            for index, labels in enumerate(split):
                columns = {} if labels is None else {"label": labels}
                write(tmp_path / "data" / f"{name}-{index}.parquet", files[:2], **columns)
        return DataConfig("imagenet32", str(tmp_path / "data"), condition="label")

    return write_shards


def _large() -> list[bytes]:
    import io

    found = []
    for level in range(4):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (level, 0, 0)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def test_integer_labels(shards):
    splits = load(shards([[5, 9], [3, 999]], [[1, 0]]))
    assert splits.train.labels.tolist() == [5, 9, 3, 999]
    assert splits.test.labels.tolist() == [1, 0]
    assert splits.train.num_classes == 1000


@pytest.mark.parametrize("encoded", [False, True])
def test_text_labels_are_numbered_by_trains_names(shards, encoded: bool):
    def column(*names: str) -> Any:
        return pyarrow.array(names).dictionary_encode() if encoded else names

    splits = load(shards([column("dog", "cat"), column("newt", "cat")], [column("newt", "newt")]))
    assert splits.train.labels.tolist() == [1, 0, 2, 0]
    assert splits.test.labels.tolist() == [2, 2]
    assert splits.test.num_classes == 3


@pytest.mark.parametrize(
    ("train", "valid", "reason"),
    [
        ([None, [0, 1]], [[0, 1]], "train-0.parquet has no column 'label', unlike other files"),
        ([[0, 1], None], [[0, 1]], "train-1.parquet has no column 'label', unlike other files"),
        ([[0, 1]], [None], "valid has no labels"),
        ([None], [None], "train has no labels"),
        ([[0.0, 1.5]], [[0.0, 1.0]], "column 'label' of train-0.parquet is double, not integers"),
        ([[0, None]], [[0, 1]], "1 rows of train-0.parquet have no label"),
        ([["a", "b"]], [["a", "c"]], "valid has the label c, which train does not"),
        ([["a", "b"]], [[0, 1]], "labels are text in one split and integers in another"),
        ([["a", "b"], [0, 1]], [[0, 1]], "is text in one file and integers in another"),
        ([pyarrow.array([2**63, 1], pyarrow.uint64())], [[0, 1]], "'label' of train-0.parquet is"),
    ],
)
def test_labels_that_are_not_usable_are_named_before_packing(shards, capsys, train, valid, reason):
    config = shards(train, valid)
    with pytest.raises(DataError, match=r"--condition label: .* with nothing \(") as caught:
        load(config)
    assert reason in str(caught.value)
    assert not list(Path(config.data_dir).glob(".packed/*"))
    splits = load(DataConfig("imagenet32", config.data_dir))
    assert splits.train.labels is None
    warned = "WARNING: the images get no labels: " in capsys.readouterr().err
    assert warned == (train != valid), "nothing is lost where there were none"


def test_some_images_of_several_row_groups(tmp_path: Path):
    """Only they are decoded, and a damaged one is named by its row in its own file."""
    images = [png(level) for level in range(20)]
    images[17] = b"junk"
    paths = [
        write(tmp_path / f"{name}.parquet", pyarrow.array(some), group=4)
        for name, some in (("a", images[:10]), ("b", images[10:]))
    ]
    listing, _ = list_parquet(paths)
    rows = np.array([0, 3, 9, 10, 16, 19])
    packed = pack(listing, GRAY, tmp_path / "set", rows=rows, workers=2)
    assert packed.pixels[:, 0, 0, 0].tolist() == rows.tolist()
    assert packed.kept.tolist() == rows.tolist()
    with pytest.raises(DataError, match=r"b\.parquet: row 7 is"):
        pack(listing, GRAY, tmp_path / "set", rows=np.array([1, 12, 17, 18]))
