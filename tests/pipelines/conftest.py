"""Finished runs, a few steps long, for the tests of the commands that open one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import autoencoder, pixelcnn, pixelvae
from pipelines.runs.pipeline import Pipeline

SMALL = [
    "--steps=20", "--limit=100", "--hidden-channels=12", "--num-samples=0",
    "--importance-samples=0", "--accelerator=cpu",
]  # fmt: skip
PIPELINES: dict[str, Pipeline[Any]] = {
    module.PIPELINE.name: module.PIPELINE for module in (pixelcnn, autoencoder, pixelvae)
}


@pytest.fixture(scope="session")
def train_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(pipeline, further flags) -> the run directory of that command; trained once a session."""
    done: dict[tuple[str, ...], Path] = {}

    def train(pipeline: str, *flags: str) -> Path:
        key = (pipeline, *flags)
        if key not in done:
            run_dir = tmp_path_factory.mktemp("runs") / pipeline
            size = [] if "--decoder=deconv" in flags else ["--num-layers=2"]
            argv = [*SMALL, *size, *flags, f"--out={run_dir}"]
            PIPELINES[pipeline].main(argv)
            done[key] = run_dir
        return done[key]

    return train


@pytest.fixture
def copy_run(train_run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """(pipeline, further flags) -> a copy of that run, to write into."""

    def copy(pipeline: str, *flags: str) -> Path:
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(train_run(pipeline, *flags), run_dir)
        return run_dir

    return copy


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(main, arguments) -> the one sentence with which a command ends that exits with code 2."""

    def refuse(main: Callable[[list[str]], None], *argv: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in argv])
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        said = [line for line in error.splitlines() if "error: " in line]
        if not said:  # in a box, as the flags' bounds are
            words = re.sub("[│─╭╮╰╯\\s]+|-{3,}", " ", error)
            said = re.findall("Error parsing [^:]*: (.*?) *For full", words)
        assert len(said) == 1, error
        return said[0].removeprefix("error: ")

    return refuse
