"""Prove that a result file is written whole, read strictly, and named where it is at fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from eval import Estimate, Result, ResultError, read_result, write_result
from eval.result_files import scores_beside


def test_a_result_survives_its_file_with_both_units_written(result, tmp_path):
    bound = result(
        kind="bound",
        value=90.0,
        rate=10.0,
        rates=(2.0, 8.0),
        estimate=Estimate(k=100, nats=89.0, stderr=0.2),
        estimates=(Estimate(k=1, nats=90.0, stderr=math.nan),),
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
        ({"k": 10}, "belongs to an estimate alone"),
        ({"stderr": -1.0}, "not a standard error"),
        ({"stderr": math.nan}, "not a standard error"),
        ({"count": 0}, "0 images"),
        ({"image_shape": (28, 28)}, "shape"),
        ({"binarize": "dynamic", "levels": 256}, "leaves 2 levels"),
        ({"estimate": Estimate(k=5, nats=79.0, stderr=0.1)}, "needs a bound"),
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
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"schema": KeyError}, "expected schema 1, got None"),
        ({"count": KeyError, "split": KeyError}, "missing required field split"),
        ({"value": "80"}, "value: expected float, got str"),
        ({"count": 10000.5}, "count: expected int, got float"),
        ({"count": True}, "count: expected int, got bool"),
        ({"subset": 0}, "subset: expected bool, got int"),
        ({"data": None}, "data: expected str, got null"),
        ({"image_shape": [1, 28, "28"]}, r"image_shape\[2\]: expected int, got str"),
        ({"bits_per_dim": 3.0}, "bits_per_dim is 3, but 0.147"),
        ({"bits_per_dim_stderr": 3.0}, "bits_per_dim_stderr"),
        ({"unit": "bits"}, "got 'bits'"),
        ({"estimate": {"k": 10}}, "estimate: .* field nats"),
        ({"value": 10**400}, "value: number out of range"),
        ({"value": 1e400}, "Infinity is not a number"),
        ({"baseline": {"value": "high"}}, "baseline.value: expected float, got str"),
        ({"estimates": "many"}, "estimates: expected array, got str"),
        ({"estimates": [{"k": 1}]}, r"estimates\[0\]: .* field nats"),
        ({"probes": [{"features": "code"}]}, r"probes\[0\]: .* field classifier"),
        ({"latents": {"levels": 5}}, "latents.levels: expected array, got int"),
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
    with pytest.raises(ResultError, match="has 40 images, but"):
        read_result(folder)
    np.save(folder / "nll.npy", nll + 1)
    with pytest.raises(ResultError, match=r"nats, but nll\.npy has"):
        read_result(folder)


@pytest.mark.parametrize("name", ["value", "seconds", "novel"])
def test_a_number_too_large_for_a_float_is_named(result, tmp_path, name):
    record = result(seconds=9.0, extra={"novel": 9.0}).to_json() | {name: "?"}
    (tmp_path / "bad.json").write_text(json.dumps(record).replace('"?"', "1e999"))
    with pytest.raises(ResultError, match="1e999 is not a finite number"):
        read_result(tmp_path / "bad.json")


def test_latents_and_probes_come_back_as_they_were(run, tmp_path):
    result = read_result(run(tmp_path / "run"))
    assert result.latents.levels[0].dims == 2
    assert result.probes[0].accuracy == 0.9
    assert [point.k for point in result.estimates] == [1, 10, 100]
    assert Result.from_json(result.to_json()) == result


def test_what_an_older_version_wrote_of_latents_is_read(run, tmp_path):
    """It put derived numbers beside them, and did not say how the images were drawn."""
    record = read_result(run(tmp_path / "run")).to_json()
    del record["latents"]["images"]
    latents = Result.from_json(record | {"novel": 1}).latents
    assert latents.images == {}
    assert latents.verdict == record["latents"]["verdict"]


def test_unknown_keys_are_kept(result):
    record = result().to_json() | {"novel": [1, 2]}
    assert Result.from_json(record).to_json()["novel"] == [1, 2]


@pytest.mark.parametrize(("name", "scores"), [("", ".nll.npy"), ("a/x.json", "a/x.nll.npy")])
def test_scores_are_beside_a_result_of_any_name(name, scores):
    assert scores_beside(Path(name)) == Path(scores)
