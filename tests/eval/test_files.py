"""Prove that files are replaced whole, with their mode and links, and never one that was read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from eval import compare, leaderboard, report, write_result
from eval.errors import ResultError
from eval.files import read_array, write_whole


def test_a_replaced_file_keeps_its_mode_and_its_symbolic_links(tmp_path):
    file, link = tmp_path / "page.md", tmp_path / "link.md"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file.name)
    write_whole(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.md", "page.md"]


def test_a_new_file_has_the_usual_mode(tmp_path):
    write_whole(tmp_path / "new", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultError, match="not a regular file"):
        write_whole(tmp_path / "pipe", "x")
    with pytest.raises(ResultError, match="not a regular file"):
        write_whole(tmp_path, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultError, match=r"cannot write .*a: No space left"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["result.json", "nll.npy", "config.json", "samples.png", "link"])
def test_no_command_writes_over_a_file_of_a_run_that_it_reads(run, tmp_path, capsys, name):
    """Neither by its own name nor by that of a link to it."""
    folder = run(tmp_path / "runs" / "a")
    other = run(tmp_path / "runs" / "b", seed=1)
    out = folder / name
    if name == "link":
        out = tmp_path / "link.html"
        out.symlink_to(folder / "result.json")
    before = out.read_bytes()
    commands = [
        (report.main, [str(tmp_path / "runs")]),
        (leaderboard.main, [str(folder)]),
        (compare.main, [str(folder), str(other)]),
    ]
    for main, paths in commands:
        assert main([*paths, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "which this command reads: write to another file" in error
    assert out.read_bytes() == before


def test_a_result_file_and_its_scores_are_not_written_over(result, tmp_path):
    write_result(result(count=3, subset=True), tmp_path / "a.json")
    np.save(tmp_path / "a.nll.npy", np.full(3, 80.0))
    for name in ("a.json", "a.nll.npy"):
        before = (tmp_path / name).read_bytes()
        out = ["--out", str(tmp_path / name), "--format", "json"]
        assert leaderboard.main([str(tmp_path / "a.json"), *out]) == 2
        assert (tmp_path / name).read_bytes() == before


def test_a_page_in_the_run_can_be_written_again(run, tmp_path):
    folder = run(tmp_path / "a")
    for _ in range(2):
        assert report.main([str(folder), "--out", str(folder / "report.html")]) == 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_page_keeps_its_line_ends_and_every_byte_around_the_leaderboard(result, tmp_path, end):
    write_result(result(name="größer"), tmp_path / "a.json")
    page, link = tmp_path / "page.md", tmp_path / "README.md"
    around = "\ufeff# Mine<!-- leaderboard -->|old<!-- /leaderboard -->|end".replace("|", end)
    latin = around.encode() + b"\xe9" + end.encode()
    page.write_bytes(latin)
    page.chmod(0o600)
    link.symlink_to(page)
    command = [str(tmp_path / "a.json"), "--no-published", "--into", str(link)]
    assert leaderboard.main(command) == 0
    first = page.read_bytes()
    assert first.startswith("\ufeff# Mine<!-- leaderboard -->".encode() + 2 * end.encode())
    assert first.endswith(b"<!-- /leaderboard -->" + f"{end}end".encode() + b"\xe9" + end.encode())
    assert "größer".encode() in first
    assert (first.count(b"\r\n") == first.count(b"\n")) == (end == "\r\n")
    assert leaderboard.main(command) == 0
    assert page.read_bytes() == first
    assert link.is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def damaged(path: Path, kind: str) -> None:
    """Write what a damaged or hostile array may be."""
    if kind == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, x=np.zeros(3))
    elif kind == "text":
        np.save(path, np.array(["a", "b"]))
    elif kind == "complex":
        np.save(path, np.zeros(3, dtype=complex))
    elif kind == "huge":
        np.save(path, np.zeros(4))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"(4,), }" + 9 * b" ", b"(4000000000,), }"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        content = {
            "empty": b"",
            "zip": b"PK\x03\x04 not one",
            "header": b"\x93NUMPY\x01\x00\xff\xff{",
        }
        path.write_bytes(content[kind])


KINDS = [
    *("pickle", "archive", "text", "complex", "huge", "pipe", "folder", "empty", "zip", "header"),
]


def test_scores_that_are_not_finite_are_refused(run, tmp_path, capsys):
    folder = run(tmp_path / "a")
    np.save(folder / "nll.npy", np.full(40, np.nan))
    assert leaderboard.main([str(folder)]) == 2
    assert "nll.npy contains NaN or infinite scores" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_array_is_one_sentence_with_its_name(tmp_path, kind):
    damaged(tmp_path / "x.npy", kind)
    with pytest.raises(ResultError, match=r"x\.npy") as error:
        read_array(tmp_path / "x.npy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_file_of_scores_leaves_the_other_results(run, tmp_path, capsys, kind):
    """It is named in one line; asked for by name, it ends the command in one sentence."""
    good, bad = run(tmp_path / "runs" / "good"), run(tmp_path / "runs" / "bad", name="b", seed=1)
    (bad / "nll.npy").unlink()
    damaged(bad / "nll.npy", kind)
    out = ["--out", str(tmp_path / "out.html")]
    for main, words in ((leaderboard.main, []), (report.main, out)):
        assert main([str(tmp_path / "runs"), *words]) == 1
        error = capsys.readouterr().err
        assert error.startswith("left out: ")
        assert error.count("\n") == 1
        assert "bad/nll.npy" in error
    assert compare.main([str(good), str(bad)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
