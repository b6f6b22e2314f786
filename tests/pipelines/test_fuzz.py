"""Flags of any value and run directories edited in any way: a result, or one sentence, always.

A command may end with exit code 0 or 2. A traceback, or the word bug, is a failure.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import autoencoder, evaluate, pixelcnn, pixelvae, run, sample

MODULES = {"pixelcnn": pixelcnn, "autoencoder": autoencoder, "pixelvae": pixelvae}
SMALL = [
    "--steps=1", "--limit=8", "--batch-size=4", "--hidden-channels=4", "--num-layers=1",
    "--num-samples=0", "--importance-samples=1", "--accelerator=cpu",
]  # fmt: skip
WORDS = [
    *("0", "-1", "1", "nan", "inf", "1e400", "1e30", "99999999999999999999999", "", "abc", "True"),
    *("1.5", "\udce9", "a\nb", "/dev/null", "2,3", "0x10", "  ", "'", "--", "[]"),
]
VALUES = [
    *(None, 0, -1, 10**12, 1.5, float("nan"), "", "x", [], {}, True, [1, 2, 3], "\udce9"),
    *({"a": 1}, 1e308, [[]]),
]


def train(pipeline: str, *flags: str) -> None:
    module = MODULES[pipeline]
    given = {flag.split("=")[0] for flag in flags}
    argv = [*(flag for flag in SMALL if flag.split("=")[0] not in given), *flags]
    run.main(pipeline, module.Config, module.PRESETS, module.build, argv)


def fault_of(command: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command; returns what it said if it did not end as it may."""
    capfd.readouterr()
    try:
        command()
        code: Any = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    said = capfd.readouterr().err
    well = code in (0, 2) and "Traceback" not in said and "This is a bug" not in said
    return "" if well else f"exit code {code}: {said}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_value_of_a_flag(seed, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    for _ in range(40):
        pipeline = chance.choice(list(MODULES))
        names = [field.name for field in dataclasses.fields(MODULES[pipeline].Config)]
        flags = [
            f"--{name.replace('_', '-')}={chance.choice(WORDS)}"
            for name in chance.sample(names, chance.choice([1, 1, 2]))
        ]
        assert not fault_of(lambda: train(pipeline, *flags), capfd), (pipeline, flags)  # noqa: B023


def edit(file: Path, how: str, chance: random.Random) -> None:
    """Damage a file of a run, or change one place of its JSON."""
    data = file.read_bytes()
    if how == "json":
        content = json.loads(data)
        places = list(nested(content))
        container, key = chance.choice(places)
        container[key] = chance.choice(VALUES)
        if chance.random() < 0.2:
            del container[key]
        file.write_text(json.dumps(content))
        return
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "cut":
        file.write_bytes(data[: chance.randrange(len(data))])
    elif how == "flip":
        place = chance.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def nested(content: Any):
    keys = content if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], (dict, list)):
            yield from nested(content[key])


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", MODULES)
def test_any_edit_of_a_run(pipeline, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    train(pipeline, "--out=reference")
    chance = random.Random(pipeline)
    commands = [
        lambda: evaluate.main(["run", "--accelerator=cpu", "--importance-samples=1"]),
        lambda: sample.main(["run", "--num=1", "--device=cpu"]),
        lambda: train(pipeline, "--out=run", "--resume", "--steps=2"),
        lambda: train(pipeline, "--out=run"),
    ]
    for _ in range(40):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("reference", "run")
        names = ["config.json"] * 4 + ["result.json", "metrics.jsonl", "nll.npy", "checkpoint"]
        name = chance.choice([*names, "weights.safetensors"])
        file = (
            next(Path("run/checkpoints").iterdir()) if name == "checkpoint" else Path("run", name)
        )
        hows = ["folder", "loop", "cut", "flip", "gone"] + ["json"] * 15 * name.endswith("n")
        edit(file, how := chance.choice(hows), chance)
        command = chance.randrange(len(commands))
        assert not fault_of(commands[command], capfd), (name, how, command)
