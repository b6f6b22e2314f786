"""Every image of a tar is read, or what is wrong with it is said."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.image_files import Rules
from pipelines.data.packing import pack
from pipelines.data.tars import list_tar
from pipelines.runtime.errors import DataError


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind=tarfile.REGTYPE, to: str = ""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, to, len(data)
    tar.addfile(member, io.BytesIO(data))


def levels(path: Path, skip: bool = False) -> dict[str, int]:
    """The level of every image that is packed, by its name."""
    for _ in range(2):  # the second time from the index
        listing = list_tar(path, path.with_suffix(".json"))
    packed = pack(listing, Rules((1, 8, 8)), path.with_suffix(""), skip_damaged=skip)
    names = [listing.paths[row] for row in packed.kept]
    return dict(zip(names, packed.pixels[:, 0, 0, 0].tolist(), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.tar"


def test_names_of_any_bytes_are_read(path: Path):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for level, name in enumerate(("a\nb.png", "grün.png", "plain.png", "long" * 60 + ".png")):
            add(tar, f"train/{name}", png(level))
    assert sorted(levels(path).values()) == [0, 1, 2, 3]
    assert "train/a\nb.png" in levels(path)


def test_companions_of_macos_and_other_hidden_members_are_left_out(path: Path):
    with tarfile.open(path, "w") as tar:
        add(tar, "./train/x.png", png(1))
        add(tar, "./train/._x.png", b"Mac OS X")
        add(tar, ".packed/y.png", png(2))
    assert levels(path) == {"train/x.png": 1}


def test_links_are_followed(path: Path):
    with tarfile.open(path, "w") as tar:
        add(tar, "b/hard.png", kind=tarfile.LNKTYPE, to="a/x.png")
        add(tar, "b/soft.png", kind=tarfile.SYMTYPE, to="../a/./x.png")
        add(tar, "b/again.png", kind=tarfile.SYMTYPE, to="soft.png")
        add(tar, "a/x.png", png(5))
    assert levels(path) == dict.fromkeys(["a/x.png", "b/again.png", "b/hard.png", "b/soft.png"], 5)


@pytest.mark.parametrize("to", ["gone.png", "x.png", "/etc/x.png", "../../x.png"])
def test_links_that_lead_nowhere_are_damaged_images(path: Path, to: str):
    with tarfile.open(path, "w") as tar:
        add(tar, "a/x.png", kind=tarfile.SYMTYPE, to=to)
        add(tar, "a/y.png", png(5))
    with pytest.raises(DataError, match=rf"a/x\.png is a link to {to}, which is not in the tar"):
        levels(path)
    assert levels(path, skip=True) == {"a/y.png": 5}


def test_of_two_members_of_one_name_the_later_counts_as_in_unpacking(path: Path):
    with tarfile.open(path, "w") as tar:
        add(tar, "x.png", png(1))
        add(tar, "./x.png", png(2))
    assert levels(path) == {"x.png": 2}


def test_other_members_are_counted_aloud(path: Path, capsys: pytest.CaptureFixture):
    with tarfile.open(path, "w") as tar:
        add(tar, "x.png", png(1))
        add(tar, "x.heic")
        add(tar, "other", kind=tarfile.SYMTYPE, to="folder")
    levels(path)
    said = "train.tar also has files that are not read as images: 1 links, 1 .heic"
    assert capsys.readouterr().err.count(said) == 2, "also when it is read from the index"


def three(path: Path) -> int:
    """Write three images; returns where the second one's header begins."""
    with tarfile.open(path, "w") as tar:
        for index in range(3):
            add(tar, f"{index}.png", png(index))
    with tarfile.open(path) as tar:
        return tar.getmembers()[1].offset


def with_header(path: Path, start: int, size: bytes) -> None:
    data = bytearray(path.read_bytes())
    header = data[start : start + 512]
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[start : start + 512] = header
    path.write_bytes(data)


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 10 + b"\xfe\0", b"\xff" * 10 + b"\0\0"])
def test_a_negative_size_drops_nothing_in_silence(path: Path, size: bytes):
    with_header(path, three(path), size)
    with pytest.raises(DataError, match=r"train\.tar is not a whole, uncompressed tar \("):
        levels(path)


def test_a_tar_that_is_not_read_to_its_end_is_refused(path: Path, tmp_path: Path):
    second = three(path)
    data = path.read_bytes()
    blank = data[:second] + b"x" * 512 + data[second + 512 :]
    for content, reason in (
        (blank, f"byte {second:,} begins no file"),
        (data[:second], "it is cut off"),
        (data[: second + 100], "it is cut off"),
        (data[: second + 600], "unexpected end of data"),
        (data + data, "another one follows"),
        (b"", "empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            levels(path)


def test_a_damaged_or_older_index_is_written_again(path: Path):
    three(path)
    for content in (b"", b"[1]", b'{"stamp": [1, 2]}'):
        path.with_suffix(".json").write_bytes(content)
        assert list(levels(path).values()) == [0, 1, 2]
