"""Being stopped by real signals, and going on by the command that was printed."""

import json
import os
import random
import runpy
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.training import checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.fit import fit
from pipelines.training.signals import Interrupts, resume_command

SCRIPT = Path(__file__).with_name("toy_run.py")
toy = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
CPU = DeviceConfig("cpu", "1")
CONFIG = TrainConfig(steps=40, batch_size=4, checkpoint_every=0)
FLAGS = ["--accelerator", "cpu", "--steps", "40", "--batch-size", "4", "--checkpoint-every", "0"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(run_dir, *flags):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "--out", str(run_dir), *FLAGS, *flags],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_training(process, run_dir):
    """Until the loop with its handlers runs."""
    deadline = time.monotonic() + 90
    while not (run_dir / "tensorboard").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it never began to train"
        time.sleep(0.05)


def assert_same_weights(one, two):
    found, expected = (checkpoint.read_state(checkpoint.checkpoints(run)[0]) for run in (one, two))
    assert found["step"] == expected["step"] == 40
    for part in ("model", "ema"):
        for name, tensor in expected[part].items():
            assert torch.equal(found[part][name], tensor), name


def test_sigterm_saves_and_the_printed_command_goes_on(tmp_path):
    process = start(tmp_path, "--delay", "0.2")
    wait_for_training(process, tmp_path)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    (path,) = checkpoint.checkpoints(tmp_path)
    assert 0 < checkpoint.step_of(path) < 40
    assert f"stopped after step {checkpoint.step_of(path)} of 40, and saved" in said
    command = said.strip().splitlines()[-1]
    words = shlex.split(command)
    delay = words.index("--delay")
    words[delay + 1] = "0"  # patience is not what is tested
    subprocess.run(words, env=ENVIRONMENT, check=True, timeout=90, capture_output=True)

    (tmp_path / "whole").mkdir()
    fit(
        make_fabric(CPU),
        toy.build(),
        toy.ToyImages(),
        CONFIG,
        tmp_path / "whole",
    )
    assert_same_weights(tmp_path, tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_at_random_moments_of_training_changes_nothing_in_the_end(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    flags = ["--checkpoint-every", "1", "--delay", "0.05"]
    chance = random.Random(0)
    kills = 0
    for folder in (killed, whole):
        folder.mkdir()
    while True:
        before = checkpoint.checkpoints(killed)
        process = start(killed, *flags, *(["--resume"] if kills else []))
        while process.poll() is None and checkpoint.checkpoints(killed) == before:
            time.sleep(0.01)
        try:
            process.communicate(timeout=chance.uniform(0.0, 1.0))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert process.returncode == 0
    assert kills > 2
    _, said = (process := start(whole, *flags)).communicate(timeout=120)
    assert process.returncode == 0, said
    assert_same_weights(killed, whole)
    names = [
        [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (killed, whole)
    ]
    assert names[0] == names[1]


def test_a_second_signal_exits_at_once(tmp_path):
    process = start(tmp_path, "--delay", "30")
    wait_for_training(process, tmp_path)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert not checkpoint.checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)],
)
def test_every_signal_saves_after_the_step_and_has_its_code(tmp_path, capsys, number, code):
    class Signalled(toy.Toy):
        def forward(self, x, y=None):
            if self.calls == 2:  # in the middle of the third step
                os.kill(os.getpid(), number)
            return super().forward(x, y)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as raised:
        fit(make_fabric(CPU), Signalled(), toy.ToyImages(), CONFIG, tmp_path)
    assert raised.value.code == code
    (path,) = checkpoint.checkpoints(tmp_path)
    assert checkpoint.step_of(path) == 3
    assert f"--out {tmp_path} --resume" in capsys.readouterr().err
    assert signal.getsignal(number) is before, "the handlers are put back"


def test_a_closed_terminal_saves(tmp_path):
    """Nothing can be written to it any more, and the kernel and the shell send a SIGHUP each."""
    process = start(tmp_path, "--delay", "0.2", "--log-every", "1")
    wait_for_training(process, tmp_path)
    assert process.stderr is not None
    process.stderr.close()
    time.sleep(1)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 143
    (path,) = checkpoint.checkpoints(tmp_path)
    assert 0 < checkpoint.step_of(path) < 40


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_on_an_evaluation_s_step_loses_no_evaluation(tmp_path):
    class Signalled(toy.Toy):
        def forward(self, x, y=None):
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(x, y)

    config = replace(CONFIG, steps=6, eval_every=2)
    calls = []

    def evaluate(_):
        calls.append(1)
        return {"bits_per_dim": 1.0}

    with pytest.raises(SystemExit):
        fit(make_fabric(CPU), Signalled(), toy.ToyImages(), config, tmp_path, evaluate=evaluate)
    again = replace(config, resume=True)
    fit(make_fabric(CPU), toy.build(), toy.ToyImages(), again, tmp_path, evaluate=evaluate)
    assert len(calls) == 3


def test_flags_tell_interrupts_from_the_rest():
    interrupts = Interrupts()
    assert interrupts.flags() == [0.0, 0.0]
    interrupts.received = signal.SIGINT
    assert interrupts.flags() == [1.0, 0.0]
    interrupts.received = signal.SIGUSR1
    assert interrupts.flags() == [0.0, 1.0]


def test_the_resume_command_replaces_what_it_must_and_keeps_the_rest():
    argv = ["python", "-m", "pipelines.pixelvae", "--out=a", "--resume", "--steps", "9"]
    assert resume_command(Path("b"), argv) == (
        "python -m pipelines.pixelvae --steps 9 --out b --resume"
    )


def test_the_resume_command_knows_the_console_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/pixel-decoders", "pixelvae", "--steps=9"])
    assert resume_command(Path("b")) == "pixel-decoders pixelvae --steps=9 --out b --resume"


def test_the_resume_command_knows_torchrun(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python", "-u", "-m", "pipelines.pixelvae"])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert resume_command(Path("b")) == (
        "torchrun --nproc-per-node=4 --nnodes=2 -m pipelines.pixelvae --out b --resume"
    )
