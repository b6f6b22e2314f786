"""What a training command ends with: a result that is never torn apart from its scores, a table."""

from __future__ import annotations

import dataclasses
import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval import Estimate, Result, read_result
from pipelines.runs.results import table, write
from pipelines.runtime.errors import TakenError
from pipelines.runtime.output import write_new

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


def scored(nats: float) -> tuple[Result, Any]:
    values = np.full(10, nats)
    result = dataclasses.replace(
        read_result(ROOT / "results" / "mnist-static-pixelvae.json"),
        kind="exact", count=10, value=nats, distortion=nats, rate=None, rates=(), estimate=None,
        stderr=0.0,
    )  # fmt: skip
    return result, SimpleNamespace(evaluation=SimpleNamespace(nll=SimpleNamespace(values=values)))


def test_an_interrupted_write_leaves_the_old_result_or_the_new_one(tmp_path, monkeypatch):
    """Before each system call that changes a name or brings a file to the disk."""
    real = {name: getattr(os, name) for name in ("replace", "unlink", "fsync")}
    seen = set()
    for last in count(1):
        write(tmp_path / "result.json", *scored(80.0), replace=True)
        calls = iter(range(last))

        def interrupted(do, *args, left=calls, **kwargs):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return do(*args, **kwargs)

        with monkeypatch.context() as patch:
            for name, do in real.items():
                patch.setattr(os, name, lambda *a, do=do, call=interrupted, **k: call(do, *a, **k))
            try:
                write(tmp_path / "result.json", *scored(60.0), replace=True)
                done = True
            except KeyboardInterrupt:
                done = False
        value = read_result(tmp_path).value  # it agrees with its scores, or has none
        seen.add(value)
        if done:
            break
    assert value == 60.0
    assert (tmp_path / "nll.npy").exists()
    assert seen == {60.0, 80.0}
    assert last > 5


def test_another_process_takes_the_name_meanwhile(tmp_path):
    """Nothing is overwritten, and what took hours to compute is not lost."""
    write(tmp_path / "result-test.json", *scored(80.0))
    with pytest.raises(TakenError):
        write(tmp_path / "result-test.json", *scored(60.0))
    assert read_result(tmp_path / "result-test.json").value == 80.0
    file = write_new(tmp_path / "result-test.json", lambda free: write(free, *scored(60.0)))
    assert file == tmp_path / "result-test-2.json"
    assert read_result(file).value == 60.0
    assert len(os.listdir(tmp_path)) == 4
