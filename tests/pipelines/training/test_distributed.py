"""Two real processes over gloo: the same gradients, the same steps, one checkpoint, no hang."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.training import checkpoint

SCRIPT = Path(__file__).with_name("toy_run.py")
toy = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
TWO = ["--accelerator", "cpu", "--devices", "2"]
TRAINING = [
    *("--steps", "12", "--batch-size", "5", "--accumulate", "2", "--checkpoint-every", "5"),
    *("--eval-every", "5", "--kl-warmup", "6", "--lr-decay", "cosine", "--log-every", "2"),
    *("--nan-index", "3", "--on-nonfinite", "skip"),  # one process sees it, both must leave it out
]


def launch(*flags, command=(sys.executable, str(SCRIPT)), cwd=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *flags],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, *, code=0, timeout=100):
    """Wait for it; a hang is a failure, and leaves no process behind."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, said
    return said


def assert_same_gradients(path):
    alone = toy.gradients(make_fabric(DeviceConfig("cpu", "1")))
    for case, expected, found in zip(toy.CASES, alone, torch.load(path), strict=True):
        for name, gradient in expected.items():
            close = torch.allclose(found[name], gradient, rtol=1e-12, atol=1e-13)
            assert close, (case, name)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_have_the_gradient_of_one(tmp_path, strategy):
    """Whole batches, odd ones, and one image for two processes; parts; free bits."""
    path = tmp_path / "gradients.pt"
    finish(launch(*TWO, "--strategy", strategy, "--gradients", str(path)))
    assert_same_gradients(path)


def final(run_dir):
    state = checkpoint.read_state(checkpoint.checkpoints(run_dir)[0])
    clocks = {"seconds", "images_per_second"}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return state, [{key: line[key] for key in line if key not in clocks} for line in lines]


def assert_same_run(one, two):
    (state, lines), (expected, expected_lines) = final(one), final(two)
    assert state["step"] == expected["step"]
    for part in ("model", "ema"):
        for name, tensor in expected[part].items():
            assert torch.equal(state[part][name], tensor), (part, name)
    for number, slots in expected["optimizer"]["state"].items():
        for name, tensor in slots.items():
            assert torch.equal(state["optimizer"]["state"][number][name], tensor), (number, name)
    assert lines == expected_lines


def wait_for_training(process, run_dir):
    deadline = time.monotonic() + 90
    while not (run_dir / "metrics.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "it never began to train"
        time.sleep(0.05)


def test_two_processes_agree_save_and_resume_bit_for_bit(tmp_path):
    """SIGTERM to one process only, in mid-epoch: both stop after the same step."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    process = launch(*TWO, *TRAINING, "--out", str(stopped), "--delay", "0.1")
    wait_for_training(process, stopped)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    said = finish(process, code=143)
    assert said.count("and saved; resume with") == 1
    assert 0 < final(stopped)[0]["step"] < 12
    finish(launch(*TWO, *TRAINING, "--out", str(stopped), "--resume"))
    finish(launch(*TWO, *TRAINING, "--out", str(whole)))
    assert_same_run(stopped, whole)
    assert all(tensor.isfinite().all() for tensor in final(whole)[0]["ema"].values())
    assert len((whole / "nonfinite.jsonl").read_text().splitlines()) == 6  # once an epoch


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_killed_in_mid_accumulation_resume_bit_for_bit(tmp_path, strategy):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    flags = [*TWO, *TRAINING, "--strategy", strategy]
    process = launch(*flags, "--out", str(killed), "--die-at", "14")  # the 7th step's second part
    finish(process, code=-signal.SIGKILL)
    finish(launch(*flags, "--out", str(killed), "--resume"))
    finish(launch(*flags, "--out", str(whole)))
    assert_same_run(killed, whole)


@pytest.mark.slow
def test_a_checkpoint_of_pieces_resumes_in_one_process(tmp_path):
    finish(launch(*TWO, *TRAINING, "--strategy", "fsdp", "--out", str(tmp_path)))
    one = ["--accelerator", "cpu", *TRAINING, "--out", str(tmp_path), "--resume"]
    finish(launch(*one, "--steps", "14"))
    assert final(tmp_path)[0]["step"] == 14


@pytest.mark.slow
def test_torchrun_starts_as_many_processes_as_it_says(tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    flags = ["--accelerator", "cpu", *TRAINING]
    (tmp_path / "torchrun").mkdir()
    (tmp_path / "fabric").mkdir()
    finish(launch(str(SCRIPT), *flags, "--out", str(tmp_path / "torchrun"), command=torchrun))
    finish(launch(*TWO, *TRAINING, "--out", str(tmp_path / "fabric")))
    assert_same_run(tmp_path / "torchrun", tmp_path / "fabric")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--data", "npz", "--data-dir", "/not/there"],
            "error: --data-dir /not/there does not exist",
        ),
        (["--kernel-size", "4"], "odd kernel size"),
        (["--out", "."], "error: . "),
    ],
    ids=["data", "network", "folder"],
)
def test_an_error_is_one_sentence_of_one_process(flags, sentence, tmp_path):
    """Exit code 2, and neither told twice nor followed by the others' tracebacks."""
    (tmp_path / "something").touch()
    command = (sys.executable, "-m", "pipelines.pixelcnn", "--steps", "1", "--num-samples", "0")
    said = finish(launch(*TWO, *flags, command=command, cwd=tmp_path), code=2)
    assert said.count("error: ") == 1, said
    assert sentence in said
    assert "Traceback" not in said
