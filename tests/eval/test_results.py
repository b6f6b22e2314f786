"""Prove that a result file is written whole, read strictly, and named where it is at fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from eval.results import (
    Estimate,
    Result,
    ResultError,
    read_result,
    scores_beside,
    write_result,
)


def test_a_result_survives_its_file_with_both_units_written(result, tmp_path):
    bound = result(
        kind="bound",
        value=90.0,
        rate=10.0,
        rates=(2.0, 8.0),
        estimate=Estimate(k=100, nats=89.0, stderr=0.2),
        extra={"estimates": [{"k": 1, "stderr": math.nan}]},
    )
    for one in (bound, result(count=1, subset=True, stderr=math.nan)):
        write_result(one, tmp_path / "result.json")
        record = json.loads((tmp_path / "result.json").read_text())
        assert record["schema"] == 1
        assert record["unit"] == "nats/image"
        assert record["bits_per_dim"] == pytest.approx(one.value / 784 / math.log(2))
        again = read_result(tmp_path)
        assert again.to_json() == one.to_json() == record
    assert math.isnan(again.stderr)
    assert record["stderr"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "exakt"}, "kind 'exakt'"),
        ({"value": math.nan, "distortion": 1.0}, "finite"),
        ({"value": 80.0, "distortion": 70.0}, "rate \\+ distortion is 70"),
        ({"kind": "bound", "rate": 5.0, "rates": (1.0, 2.0)}, "rates sum to 3"),
        ({"rate": 5.0}, "exact likelihood has no rate"),
        ({"kind": "estimate"}, "k=None"),
        ({"kind": "estimate", "k": 0}, "k=0"),
        ({"k": 10}, "belongs to an estimate"),
        ({"stderr": -1.0}, "no standard error"),
        ({"stderr": math.nan}, "no standard error"),
        ({"count": 0}, "0 images"),
        ({"image_shape": (28, 28)}, "shape"),
        ({"binarize": "dynamic", "levels": 256}, "leaves 2 levels"),
        ({"estimate": Estimate(k=5, nats=79.0, stderr=0.1)}, "belongs beside a bound"),
        (
            {"kind": "bound", "rate": 1.0, "estimate": Estimate(k=5, nats=90.0, stderr=0.1)},
            "worse than its bound",
        ),
    ],
)
def test_a_contradiction_can_not_even_be_made(result, changes, words):
    with pytest.raises(ResultError, match=words):
        result(**changes)


def break_record(result, **changes):
    record = result(kind="bound", rate=5.0).to_json()
    for name, value in changes.items():
        if value is KeyError:
            del record[name]
        else:
            record[name] = value
    return record


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"schema": KeyError}, "schema None"),
        ({"count": KeyError, "split": KeyError}, "missing: split, count"),
        ({"value": "80"}, "value must be float"),
        ({"count": 10000.5}, "count must be int"),
        ({"count": True}, "count must be int"),
        ({"subset": 0}, "subset must be bool"),
        ({"data": None}, "data must not be null"),
        ({"image_shape": [1, 28, "28"]}, r"image_shape\[2\] must be int"),
        ({"bits_per_dim": 3.0}, "bits_per_dim is 0.147"),
        ({"bits_per_dim_stderr": 3.0}, "bits_per_dim_stderr"),
        ({"unit": "bits"}, "unit 'bits'"),
        ({"estimate": {"k": 10}}, "estimate.nats"),
        ({"value": 10**400}, "too large"),
        ({"value": 1e400}, "Infinity is not a number"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(result, tmp_path, changes, words):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(break_record(result, **changes)))
    with pytest.raises(ResultError, match=words) as error:
        read_result(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 1, "value": NaN}', "\xff", "[" * 99999, '{"schema": ' + "9" * 9999],
)
def test_what_is_no_json_object_is_named(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultError, match=r"bad\.json: "):
        read_result(path)


def test_scores_beside_a_result_must_agree_with_it(run, tmp_path):
    folder = run(tmp_path / "run")
    read_result(folder)
    nll = np.load(folder / "nll.npy")
    np.save(folder / "nll.npy", nll[:-1])
    with pytest.raises(ResultError, match="says 40 images, but"):
        read_result(folder)
    np.save(folder / "nll.npy", nll + 1)
    with pytest.raises(ResultError, match=r"nats, but nll\.npy has"):
        read_result(folder)


def test_unknown_keys_are_kept(result):
    record = result().to_json() | {"novel": [1, 2]}
    assert Result.from_json(record).to_json()["novel"] == [1, 2]


@pytest.mark.parametrize(("name", "scores"), [("", ".nll.npy"), ("a/x.json", "a/x.nll.npy")])
def test_scores_are_beside_a_result_of_any_name(name, scores):
    assert scores_beside(Path(name)) == Path(scores)
