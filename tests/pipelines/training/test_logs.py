"""Logs: appended to on resuming, without a step twice, and never the end of a run."""

import json

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


def test_a_full_disk_loses_lines_and_no_more(tmp_path, largest_file, capfd):
    """Each line is there as a whole or not at all, and one warning for each kind of file."""
    with Logs(tmp_path, step=0, enabled=True) as logs:
        with largest_file(500):
            for step in range(1, 60):
                logs.write(step, {"nats": 1.0 * step})
                logs.sync()
        logs.write(60, {"nats": 60.0})
    whole = steps(tmp_path / "metrics.jsonl")
    assert whole == [*range(1, len(whole)), 60]
    assert 5 < len(whole) < 50
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("WARNING: " in line and "File too large" in line for line in said)


def test_a_run_directory_that_cannot_hold_curves_is_a_warning(tmp_path, capfd):
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    (tmp_path / "metrics.jsonl").mkdir()
    write(tmp_path, 0, [1, 2])
    assert capfd.readouterr().err.count("WARNING: ") == 2
