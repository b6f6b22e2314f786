"""A user's own optimizer: it takes the steps, its rates follow the schedule, its state persists."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import CheckpointError, UserError
from pipelines.training.config import TrainConfig
from pipelines.training.fit import fit
from pipelines.training.step import Stepper

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_run.py"))))
CONFIG = TrainConfig(steps=6, batch_size=4, warmup_steps=2, ema=0.9, checkpoint_every=3)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def train(run_dir, config=CONFIG, optimizer=sgd):
    run_dir.mkdir(exist_ok=True)
    fabric = make_fabric(DeviceConfig("cpu", "1"), config.precision)
    fit(fabric, toy.build(), toy.ToyImages(), config, run_dir, optimizer=optimizer)
    return load_file(run_dir / "weights.safetensors")


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_adamw_as_the_default_has_it_gives_the_same_weights(tmp_path):
    def adamw(parameters):
        return torch.optim.AdamW(parameters, lr=CONFIG.learning_rate, weight_decay=0.0)

    same = train(tmp_path / "own", optimizer=adamw)
    assert equal(train(tmp_path / "default", optimizer=None), same)
    assert not equal(train(tmp_path / "sgd"), same)


def test_each_group_is_warmed_up_to_its_own_rate():
    model = toy.build()
    parameters = list(model.parameters())
    groups = [{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:], "lr": 0.1}]
    fabric = make_fabric(DeviceConfig("cpu", "1"), CONFIG.precision)
    stepper = Stepper(fabric, model, CONFIG, 6, torch.optim.SGD(groups))
    job = toy.work(
        toy.ToyImages(), 0, seed=0, batch_size=4, rank=0, world=1, accumulate=1
    )  # fmt: skip
    stepper.take(job, lambda: [0.0, 0.0])
    assert [group["lr"] for group in stepper.optimizer.param_groups] == [0.25, 0.05]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", replace(CONFIG, steps=3))
    assert equal(train(tmp_path / "parts", replace(CONFIG, resume=True)), whole)


@pytest.mark.parametrize("other", [None, lambda p: torch.optim.SGD([{"params": [x]} for x in p])])
def test_another_optimizer_does_not_resume_a_run(other, tmp_path):
    train(tmp_path / "run", replace(CONFIG, steps=3))
    with pytest.raises(
        CheckpointError, match=r"trained with another SGD, not with this (AdamW|SGD)"
    ):
        train(tmp_path / "run", replace(CONFIG, resume=True), other)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda p: 3, "to be a torch optimizer, or a function.*, got a int"),
        (sgd([torch.nn.Parameter(torch.ones(1))]), "the model's own parameters"),
    ],
)
def test_what_is_no_optimizer_of_the_model_is_refused(optimizer, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", optimizer=optimizer)
    assert not list((tmp_path / "run").iterdir())
