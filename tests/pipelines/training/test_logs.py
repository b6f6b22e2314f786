"""Logs: appended to on resuming, without a step twice, and clear about a full disk."""

import json
import os

import pytest

from pipelines.training.checkpoint import CheckpointError
from pipelines.training.logs import Logs, drop_later_lines


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def write(run_dir, start, some):
    with Logs(run_dir, step=start, enabled=True) as logs:
        for step in some:
            logs.write(step, {"nats": 1.0 * step})


def test_a_resumed_run_appends_after_its_checkpoint(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 4, 5])
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_line_cut_short_by_a_crash_goes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "na')
    drop_later_lines(path, 9)
    assert steps(path) == [1, 2]
    path.write_text('{"step": 1}\n{"step": 2}')
    drop_later_lines(path, 9)
    assert steps(path) == [1]


def test_other_processes_write_nothing(tmp_path):
    with Logs(tmp_path, step=0, enabled=False) as logs:
        logs.write(1, {"nats": 1.0})
        logs.nonfinite(1, {"loss": "nan"})
        logs.sync()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(28, os.strerror(28))

    with Logs(tmp_path, step=0, enabled=True) as logs:
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: No space left on device"):
            logs.write(1, {"nats": 1.0})
        monkeypatch.undo()
