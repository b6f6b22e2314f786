"""The table that a training command ends with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from eval.results import Estimate, read_result
from pipelines.finished.outcome import table

ROOT = Path(__file__).resolve().parents[3]


def test_large_numbers_do_not_run_together():
    result = dataclasses.replace(
        read_result(ROOT / "results" / "mnist-static-pixelvae.json"),
        value=57_908.102,
        stderr=21_115.216,
        rate=50_000.0,
        rates=(50_000.0,),
        distortion=7_908.102,
        estimate=Estimate(k=1000, nats=57_000.0, stderr=20_000.0),
        baseline=None,
        image_shape=(3, 64, 64),
    )
    assert table(result, Path("run")).split("\n")[1:] == [
        "                          nats/image             bits/dim",
        "  bound (-ELBO)         ≤ 57908.102 ± 21115.216  6.7988 ± 2.4791",
        "  estimate, K=1000      ≈ 57000.000 ± 20000.000  6.6922 ± 2.3481",
        "  rate                    50000.000              5.8703",
        "  distortion              7908.102               0.9285",
        "  in run",
    ]
