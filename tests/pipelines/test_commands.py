"""Commands over runs: flags before torch, and the same flags and defaults as their functions."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import COMMANDS
from pipelines.runtime.config import flat

ROOT = Path(__file__).parents[2]
WORK = {
    "evaluate": "evaluate",
    "sample": "sample",
    "interpolate": "interpolate",
    "latents": "study_latents",
    "quality": "judge_samples",
    "outliers": "score_images",
}
ACTIONS = ("encode", "decode", "export")


@pytest.mark.parametrize("command", WORK)
def test_a_command_and_its_function_have_the_same_flags_and_defaults(command: str) -> None:
    function = getattr(importlib.import_module(f"pipelines.runs.{command}"), WORK[command])
    config = importlib.import_module(f"pipelines.{command}").Config
    required = {"images": "x"} if command == "outliers" else {}
    flags = flat(config(run="r", **required))
    taken = inspect.signature(function).parameters.values()
    assert flags.keys() == {parameter.name for parameter in taken}
    for parameter in taken:
        if parameter.default is not parameter.empty:
            assert flags[parameter.name] == parameter.default, parameter.name


@pytest.mark.parametrize("action", ACTIONS)
def test_so_have_the_actions_of_compress(action: str) -> None:
    function = getattr(importlib.import_module("pipelines.runs.compress"), action)
    config = getattr(importlib.import_module("pipelines.compress"), action.capitalize())
    needed = [Path("a"), Path("b")] if action != "export" else [Path("a")]
    flags = flat(config(*needed))
    _, *taken, trust = inspect.signature(function).parameters.values()
    assert trust.name == "trust"
    assert list(flags) == [one.name for one in taken]
    for one in taken:
        assert one.default in (one.empty, flags[one.name])


def test_flags_are_read_before_torch_is_imported() -> None:
    """Which takes seconds: --help, typos and missing files are answered at once."""
    names = ", ".join(command.module for command in COMMANDS.values())
    code = f"import sys, {names}; print({{'torch', 'lightning_fabric'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
