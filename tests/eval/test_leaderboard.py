"""Prove that only comparable results are ranked, whatever is thrown at the leaderboard."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from pathlib import Path

import pytest

from eval import Estimate, ResultError, write_result
from eval.discovery import Found
from eval.leaderboard import main
from eval.published import published
from eval.ranking import rank, tables
from eval.tables import to_csv, to_json, to_markdown


def found(*results):
    return [Found(one, Path(f"{place}.json")) for place, one in enumerate(results)]


def names(rows):
    return [(row.name, row.rank) for row in rows]


def test_every_published_row_is_sourced_and_converted_to_nats():
    rows = published()
    assert len(rows) == 122
    for row in rows:
        assert row.mark in ("read", "quoted", "unverified")
        assert row.kind in ("exact", "bound", "estimate")
        assert row.source.title
        assert row.source.year > 1980
        assert row.mark != "quoted" or row.via or row.note
        dims = math.prod(row.dataset.image_shape)
        scale = 1 if row.unit == "nats/image" else dims * math.log(2)
        assert row.nats == pytest.approx(row.value * scale)
        assert row.kind == "estimate" or row.k is None
    by_model = {(row.model, row.dataset.data): row for row in rows}
    assert by_model["VDVAE", "imagenet64"].nats / 12288 == pytest.approx(2.44, abs=0.005)
    assert sum(row.disputed for row in rows) == 4
    hvi = by_model["ConvVAE + HVI", "mnist"]
    assert (hvi.kind, hvi.value, hvi.bound) == ("estimate", 81.94, 83.49)
    assert by_model["IAF-VAE", "cifar10"].kind == "estimate"
    assert by_model["MD4", "cifar10"].value == 2.75


def test_memory_disputes_and_augmentation_are_flagged_and_never_ranked():
    for table in tables([]):
        for row in (*table.ranked, *table.apart):
            assert row.reference is not None
            doubtful = row.reference.mark == "unverified" or row.reference.disputed
            assert (row.rank is None) == bool(doubtful or row.reference.flag)
            assert bool(row.flags) == (row.rank is None)


def test_kinds_share_a_ranking_and_carry_their_marks(result):
    boards = tables(
        found(
            result(name="exact", value=81.0),
            result(name="bound", kind="bound", value=79.5, rate=5.0),
            result(
                name="iwae",
                kind="bound",
                value=80.5,
                rate=5.0,
                estimate=Estimate(k=50, nats=78.0, stderr=0.2),
            ),
            result(name="label", kind="given label", condition="label", value=70.0),
            result(name="code", kind="given code", value=60.0),
            result(name="sly", kind="bound", condition="label", value=50.0, rate=5.0),
        ),
        literature=(),
    )
    (table,) = boards
    assert names(table.ranked) == [("iwae", 1), ("bound", 2), ("exact", 3)]
    assert names(table.apart) == [("sly", None), ("code", None), ("label", None)]
    text = to_markdown(boards)
    assert "| ≈ 78.00 ± 0.20 (K=50) |" in text
    assert "| ≤ 79.50 ± 0.20 |" in text
    assert "| 81.00 ± 0.20 |" in text
    assert "| ≤ 80.50 |" in text
    assert "given label" in text
    assert "bits/dim = nats / (C·H·W·ln 2)" in text


@pytest.mark.parametrize(
    ("seconds", "remark"),
    [
        (None, ""),
        (0.0, ""),
        (2480.0, "trained 41 min on a GPU, 2 threads"),
        (90.0, "trained 1.5 min on a GPU, 2 threads"),
    ],
)
def test_a_result_says_what_its_training_took(result, seconds, remark):
    versions = {"device": "a GPU", "threads": "2"}
    (table,) = tables(found(result(train_seconds=seconds, versions=versions)), literature=())
    assert table.ranked[0].note == remark


def test_a_result_says_how_many_processes_trained_it(result):
    versions = {"device": "x86_64", "threads": "1", "processes": "2"}
    (table,) = tables(found(result(train_seconds=4274.0, versions=versions)), literature=())
    assert table.ranked[0].note == "trained 71 min on x86_64, 2 processes, 1 thread each"


def test_other_images_have_a_table_of_their_own(result):
    apart = [
        result(name="full"),
        result(name="short", subset=True, count=2000),
        result(name="trained", split="train", count=50000),
        result(name="release", variant="new"),
        result(name="changed", fingerprint="bb"),
        result(name="levels", levels=4),
        result(name="shape", image_shape=(1, 32, 32)),
        result(name="threshold", binarize="threshold"),
        result(name="mnist", data="mnist"),
    ]
    boards = tables(found(*apart), literature=())
    assert len(boards) == len(apart)
    by_name = {table.ranked[0].name: table for table in boards}
    assert by_name["short"].ranked[0].flags == ("subset: 2000 images",)
    assert by_name["trained"].ranked[0].flags == ("training images",)
    assert "2,000 images" in by_name["short"].title


def test_the_literature_joins_only_full_test_sets(result):
    boards = tables(
        found(result(value=79.1), result(name="short", subset=True, count=2000, value=60.0))
    )
    (full,) = (t for t in boards if t.title.startswith("MNIST, statically"))
    assert ("gated", 1) in names(full.ranked)  # within two standard errors of 79.02
    assert len(full.ranked) > 10
    (short,) = (t for t in boards if t.images.subset)
    assert names(short.ranked) == [("short", 1)]


def test_a_claim_to_the_whole_set_with_another_count_is_flagged(result):
    (table,) = tables(found(result(count=9999)), literature=())
    assert table.apart[0].flags == ("9,999 images, but the whole set has 10,000",)


def test_imagenet_validation_is_its_test_set(result):
    dims = 3 * 64 * 64
    for split in ("valid", "test"):
        one = result(
            data="imagenet64",
            variant="old",
            split=split,
            count=49999,
            image_shape=(3, 64, 64),
            levels=256,
            value=3.60 * dims * math.log(2),
            stderr=5.0,
        )
        table = next(t for t in tables(found(one)) if "64×64, OLD" in t.title)
        assert table.unit == "bits/dim"
        ours = next(row for row in table.ranked if row.found)
        gated = next(row for row in table.ranked if row.name == "Gated PixelCNN")
        assert ours.rank is not None
        assert gated.rank is not None
        assert ours.rank > gated.rank


def test_ties_lie_within_two_joint_standard_errors(result):
    rows = [
        ("a", 80.0, 0.3),
        ("b", 80.9, 0.4),  # joint 0.5: within 1.0 of a
        ("c", 81.3, 0.4),  # a is surely better, b is not
        ("d", 81.3, 0.4),
        ("e", 90.0, 0.1),
    ]
    results = [result(name=n, value=v, stderr=s) for n, v, s in rows]
    expected = [("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 5)]
    for order in itertools.permutations(results):
        (table,) = tables(found(*order), literature=())
        assert names(table.ranked) == expected
        assert [row.tie for row in table.ranked] == [True, True, True, True, False]


def test_published_equals_tie_and_ranks_do_not_depend_on_order():
    rows = [row for table in tables([], data="imagenet64") for row in table.ranked]
    one = rank(rows)
    assert one == rank(rows[::-1])
    tied = {row.name for row in one if row.rank == next(r.rank for r in one if r.name == "VDVAE")}
    assert tied == {"VDVAE", "SPN 150M"}


def test_hostile_names_stay_text_in_every_format(result):
    name = 'x<script>alert("1")</script>|*b*\n# head'
    boards = tables(found(result(name=name)), literature=())
    text = to_markdown(boards)
    assert "<script>" not in text
    row = next(line for line in text.splitlines() if "script" in line)
    assert row.replace("\\|", "").count("|") == 10
    assert json.loads(to_json(boards))["rows"][0]["model"] == name
    assert next(csv.DictReader(io.StringIO(to_csv(boards))))["model"] == name


def test_an_unknown_data_set_is_one_sentence():
    with pytest.raises(
        ResultError, match="'mnit': did you mean mnist\\? There are binarized_mnist, cifar10"
    ):
        tables([], data="mnit")


@pytest.mark.parametrize("format", ["md", "html", "csv", "json"])
def test_the_command_writes_every_format(run, tmp_path, format, capsys):
    folder = run(tmp_path / "run")
    out = tmp_path / "made" / f"board.{format}"
    assert main([str(folder), "--format", format, "--out", str(out)]) == 0
    assert "a pixelvae" in out.read_text()
    assert capsys.readouterr().out == ""


def test_the_commands_exit_codes(run, result, tmp_path, capsys):
    folder = run(tmp_path / "run")
    (tmp_path / "bad.json").write_text('{"schema": 9}')
    assert main([str(folder), str(tmp_path / "bad.json")]) == 1
    captured = capsys.readouterr()
    assert "a pixelvae" in captured.out
    assert captured.err.count("\n") == 1
    assert "bad.json: expected schema 1, got 9" in captured.err
    assert main([str(tmp_path / "bad.json")]) == 2
    assert main([str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    write_result(result(), tmp_path / "a.json")
    write_result(result(value=70.0), tmp_path / "b.json")
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_without_runs_the_literature_stands_alone(capsys):
    assert main(["--data", "mnist"]) == 0
    out = capsys.readouterr().out
    assert "## MNIST, statically binarized" in out
    assert "## MNIST, dynamically binarized" in out
    assert "CIFAR" not in out
    assert main(["--no-published"]) == 2


def test_a_leaderboard_is_put_between_the_marks_of_a_page(result, tmp_path, capsys):
    """Twice gives the same page; what surrounds it stays; without marks nothing is written."""
    write_result(result(), tmp_path / "a.json")
    page = tmp_path / "README.md"
    page.write_text("# Mine\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nend\n")
    command = [str(tmp_path / "a.json"), "--no-published", "--into", str(page)]
    assert main(command) == 0
    first = page.read_text()
    assert first.startswith("# Mine\n<!-- leaderboard -->\n\n### ")
    assert first.endswith("\n<!-- /leaderboard -->\nend\n")
    assert "old" not in first
    assert main(command) == 0
    assert page.read_text() == first
    page.write_text("no marks")
    assert main(command) == 2
    assert page.read_text() == "no marks"
    assert "expected one line <!-- leaderboard -->" in capsys.readouterr().err
    assert main([*command, "--format=csv"]) == 2
