"""Run directories: each run has its own, whatever else starts at the same moment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval import read_result
from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.lock import LOCK
from pipelines.training import config_file
from pipelines.training.run_directory import new_run, remove_leftovers, resumed_run

ROOT = Path(__file__).parents[3]


def test_a_new_run_refuses_what_it_would_overwrite(tmp_path):
    out = tmp_path / "a" / "b"
    with new_run(str(out), "") as run_dir:
        assert run_dir == out
        (out / "config.json").touch()
    with pytest.raises(CheckpointError, match="is not empty: resume that run with --resume"):
        new_run(str(out), "").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        new_run(str(tmp_path / "file"), "").__enter__()
    with pytest.raises(CheckpointError, match="cannot create"):
        new_run(str(tmp_path / "file" / "below"), "").__enter__()


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    """And one that was killed before it wrote anything is no hindrance."""
    out = tmp_path / "run"
    with pytest.raises(RuntimeError), new_run(str(out), ""):
        raise RuntimeError
    assert not out.exists()
    out.mkdir()
    (out / LOCK).touch()
    with new_run(str(out), ""):
        pass
    assert not os.listdir(out), "an empty folder of the user's own stays"


def test_default_names_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_run("", "runs/x") as one, new_run("", "runs/x") as two, new_run("", "runs/x") as three:
        assert [str(path) for path in (one, two, three)] == ["runs/x", "runs/x-2", "runs/x-3"]


@pytest.mark.parametrize("out", ["", "none"])
def test_only_a_run_is_resumed(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no run to resume .* has no config.json"):
        resumed_run(out).__enter__()
    assert not os.listdir(tmp_path)


def test_leftovers_of_a_run_go_and_the_user_s_files_stay(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    ours = [
        ".weights.safetensors.01234567.unfinished",
        ".samples.png.01234567.unfinished",
        "checkpoints/.step-000000007.pt.89abcdef.unfinished",
    ]
    theirs = [".notes.tmp", ".weights.safetensors.12.tmp", ".mine.unfinished", "notes.unfinished"]
    theirs += [".result-test.json.01234567.unfinished"]  # another command may be writing it
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(theirs)


# Two training commands at the same moment, again and again; forked, since importing takes seconds.
RACE = """
import os, sys
from pipelines import pixelcnn

def train(*flags):
    argv = ["--limit=20", "--hidden-channels=4", "--num-layers=1", "--num-samples=0",
            "--accelerator=cpu", "--checkpoint-every=1", *flags]
    pixelcnn.PIPELINE.main(argv)

def at_once(*commands):
    children = []
    for flags in commands:
        if not (pid := os.fork()):
            code = 70
            try:
                train(*flags)
                code = 0
            except SystemExit as stopped:
                code = stopped.code
            finally:
                os._exit(code)
        children.append(pid)
    return sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)

starts = int(sys.argv[1])
for _ in range(starts):
    assert at_once(["--steps=2", "--seed=1"], ["--steps=2", "--seed=2"]) == [0, 0]
for start in range(starts):
    same = ["--steps=2", f"--out=same{start}"]
    assert at_once(same, same) == [0, 2]
    more = [*same, "--steps=4", "--resume"]
    assert at_once(more, more) in ([0, 2], [0, 0])  # the second may come after the first
"""


@pytest.mark.parametrize("starts", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_two_runs_at_once_never_share_a_directory(tmp_path, starts):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(starts)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights: dict[tuple[int, int], set[bytes]] = {}
    runs = [*(tmp_path / "runs").iterdir(), *tmp_path.glob("same*")]
    assert len(runs) == 3 * starts
    for run in runs:
        config, result = config_file.read_config(run)["config"], read_result(run)
        assert config == json.loads((run / "result.json").read_text())["config"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "nats" in line]
        assert steps == sorted(set(steps))
        key = (config["seed"], result.steps)
        weights.setdefault(key, set()).add((run / "weights.safetensors").read_bytes())
    assert sorted(weights) == [(0, 4), (1, 2), (2, 2)]
    assert [len(same) for same in weights.values()] == [1, 1, 1], "the same bytes every time"
