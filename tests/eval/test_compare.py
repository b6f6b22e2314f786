"""Prove that a comparison is paired, and refuses runs that were scored on different images."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from eval.compare import main
from eval.comparison import compare
from eval.results import ResultError


@pytest.fixture(name="pair")
def pair_fixture(run, tmp_path):
    """Run B has A's scores and half a nat more on average, spread from 0 to 1."""
    a = run(tmp_path / "a", name="alpha")
    b = run(tmp_path / "b", name="beta", shift=0.5, config={"steps": 20})
    scores = np.load(a / "nll.npy")
    np.save(b / "nll.npy", scores + np.linspace(0, 1, 40))
    return a, b


def test_the_standard_error_is_that_of_the_differences(pair):
    comparison = compare(*pair)
    steps = np.linspace(0, 1, 40)
    assert comparison.difference.mean == pytest.approx(-0.5)
    assert comparison.difference.stderr == pytest.approx(steps.std(ddof=1) / math.sqrt(40))
    assert comparison.difference.stderr < comparison.a.stderr / 10
    assert comparison.verdict.startswith("A is better by 0.500")
    assert comparison.best(3).tolist() == [39, 38, 37]
    assert comparison.worst(3).tolist() == []
    assert compare(*pair[::-1]).worst(3).tolist() == [39, 38, 37]


def test_a_run_does_not_differ_from_itself(pair):
    comparison = compare(pair[0], pair[0])
    assert comparison.verdict.startswith("No difference")
    assert comparison.deviations == 0


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "bb"},
        {"split": "valid"},
        {"variant": "subset: other"},
        {"levels": 16},
        {"data": "mnist"},
    ],
)
def test_other_images_are_refused(run, pair, tmp_path, change):
    other = run(tmp_path / "other", **change)
    with pytest.raises(ResultError, match=f"differ in {next(iter(change))}"):
        compare(pair[0], other)


def test_missing_scores_and_runs_are_one_sentence(pair, tmp_path, capsys):
    assert main([str(pair[0]), str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (pair[1] / "nll.npy").unlink()
    assert main([str(pair[0]), str(pair[1])]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "nll.npy is missing" in err
    assert main([str(pair[0]), str(pair[0]), "--num", "0"]) == 2


def test_a_result_file_with_its_scores_beside_it_is_a_run_too(pair):
    a, b = pair
    (b / "result.json").rename(b / "valid.json")
    (b / "nll.npy").rename(b / "valid.nll.npy")
    assert compare(a, b / "valid.json").difference.mean == pytest.approx(-0.5)


def test_the_page_shows_images_pictures_and_settings_escaped(run, tmp_path, capsys):
    a = run(tmp_path / "a", name="<script>alert(1)</script>")
    b = run(tmp_path / "b", seed=1, config={"steps": 20})
    out = tmp_path / "page.html"
    assert main([str(a), str(b), "--out", str(out), "--num", "3"]) == 0
    assert "alert(1)" in capsys.readouterr().out
    page = out.read_text()
    assert "<script" not in page
    assert len(re.findall(r'alt="image \d+"', page)) == 6
    assert "samples of A" in page
    assert "samples of B" in page
    assert "<td>steps</td><td>10</td><td>20</td>" in page


def test_images_of_the_test_set_do_not_illustrate_scores_of_another_split(run, tmp_path):
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1)
    for folder in (a, b):
        (folder / "result.json").rename(folder / "result-train.json")
        (folder / "nll.npy").rename(folder / "result-train.nll.npy")
    out = tmp_path / "page.html"
    files = [str(folder / "result-train.json") for folder in (a, b)]
    assert main([*files, "--out", str(out)]) == 0
    assert 'alt="image' not in out.read_text()


def test_numbers_of_different_kinds_come_with_a_warning(run, tmp_path, capsys):
    a = run(tmp_path / "a")
    b = run(tmp_path / "b", kind="given label", condition="label", estimate=None)
    assert main([str(a), str(b)]) == 0
    assert "reflects more than the models" in capsys.readouterr().out


def test_an_images_file_of_another_kind_is_named(run, tmp_path, capsys):
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1)
    np.save(a / "images.npy", np.zeros((40, 8, 8)))
    assert main([str(a), str(b), "--out", str(tmp_path / "page.html")]) == 2
    assert "images.npy must contain uint8" in capsys.readouterr().err
    assert json.loads((a / "config.json").read_text()) == {}
