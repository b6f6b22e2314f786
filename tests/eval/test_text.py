"""Prove that no text from a file drives a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pytest

from eval import compare, leaderboard, report, write_result
from eval.text import complain, say, spreadsheet_cell, visible

ESCAPE = "a\x1b]0;owned\x07b\x9bc\u202ed\x7f"


def test_what_does_not_print_is_written_as_an_escape():
    assert visible(ESCAPE) == r"a\x1b]0;owned\x07b\x9bc\u202ed\x7f"
    assert visible("größer – 80.62 ± 0.20 ≤ 日本") == "größer – 80.62 ± 0.20 ≤ 日本"
    assert visible("a\nb\udcff", keep="\n") == "a\nb\\udcff"


@pytest.mark.parametrize("format", ["md", "html", "csv", "json"])
def test_a_name_with_terminal_escapes_is_shown_with_them_visible(result, tmp_path, capsys, format):
    write_result(
        result(name=ESCAPE, versions={"threads": ESCAPE}, date=ESCAPE), tmp_path / "a.json"
    )
    assert leaderboard.main([str(tmp_path / "a.json"), "--no-published", "--format", format]) == 0
    shown = capsys.readouterr().out
    assert all(mark.isprintable() or mark == "\n" for mark in shown)
    assert "owned" in shown
    out = tmp_path / f"out.{format}"
    again = ["--no-published", "--format", format, "--out", str(out)]
    assert leaderboard.main([str(tmp_path / "a.json"), *again]) == 0
    assert all(mark.isprintable() or mark in "\n\t" for mark in out.read_text())


def test_reports_comparisons_and_errors_show_them_too(run, tmp_path, capsys):
    """Also half of a surrogate pair, which no encoding has."""
    a, b = run(tmp_path / "a", name=ESCAPE), run(tmp_path / "b", name="\ud800", seed=1)
    page = tmp_path / "page.html"
    assert report.main([str(a), str(b), "--out", str(page), "--title", ESCAPE]) == 0
    assert all(mark.isprintable() or mark in "\n\t" for mark in page.read_text())
    assert compare.main([str(a), str(b), "--out", str(page)]) == 0
    assert all(mark.isprintable() or mark in "\n\t" for mark in page.read_text())
    (tmp_path / ESCAPE).write_text("{")
    assert leaderboard.main([str(tmp_path / ESCAPE)]) == 2
    captured = capsys.readouterr()
    assert all(mark.isprintable() or mark == "\n" for mark in captured.out + captured.err)
    assert r"\x1b]0;owned" in captured.err


def test_a_terminal_of_few_characters_shows_the_others_as_escapes():
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("80.62 ± 0.20", ascii_only)
    ascii_only.seek(0)
    assert ascii_only.read() == "80.62 \\xb1 0.20\n"


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\n=", " +"])
def test_no_cell_of_a_csv_begins_a_formula(result, tmp_path, capsys, sign):
    write_result(result(name=f"{sign}1+1", command=f"{sign}cmd"), tmp_path / "a.json")
    assert leaderboard.main([str(tmp_path / "a.json"), "--no-published", "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["model"] == f"'{sign}1+1"
    assert row["command"].startswith("'")
    assert float(row["nats"]) == 80.0
    assert spreadsheet_cell(-1.5) == -1.5


def test_json_gives_every_name_back_as_it_was(result, tmp_path):
    for name in (ESCAPE, "\ud800", "größer"):
        write_result(result(name=name), tmp_path / "a.json")
        out = tmp_path / "out.json"
        words = ["--no-published", "--format", "json", "--out", str(out)]
        assert leaderboard.main([str(tmp_path / "a.json"), *words]) == 0
        assert json.loads(out.read_text())["rows"][0]["model"] == name


def test_an_error_of_the_system_is_a_sentence_that_names_the_file(tmp_path, capsys):
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "none.md").read_bytes()
    complain("error", caught.value)
    said = f"error: cannot use {tmp_path / 'none.md'}: No such file or directory\n"
    assert capsys.readouterr().err == said
