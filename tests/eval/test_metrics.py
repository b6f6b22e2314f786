"""Prove that a run's metrics are read whole, whoever wrote them and however they end."""

from __future__ import annotations

import pytest

from eval.errors import ResultError
from eval.metrics import read_metrics


def test_a_line_torn_off_at_the_end_is_no_error_but_one_in_the_middle_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ResultError, match="line 2 is not JSON"):
        read_metrics(path)


def test_metrics_are_told_apart_by_split_however_they_name_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "bits_per_dim": 3.0}\n'
        '{"step": 2, "seconds": 9, "valid/bits_per_dim": 2.5}\n'
        '{"step": 3, "split": "test", "bits_per_dim": 2.0}\n'
    )
    scores = [
        (r["split"], r["step"], r["bits_per_dim"])
        for r in read_metrics(path)
        if "bits_per_dim" in r
    ]
    assert scores == [("train", 1, 3.0), ("valid", 2, 2.5), ("test", 3, 2.0)]
