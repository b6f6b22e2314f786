"""Every command's --help says how it is called, and of each flag what it is for."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    f"{file.parent.name}.{file.stem}"
    for folder in ("pipelines", "eval")
    for file in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in file.read_text() and file.stem != "__main__"
)


def test_the_commands_are_found() -> None:
    assert {"pipelines.pixelvae", "pipelines.sample", "eval.leaderboard"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_help(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m {command} ")
    assert "{None}" not in text, "what may be left out needs a metavar"
    flat = " ".join(re.sub("[│╭─╮╰╯]", " ", text).split())
    mute = re.findall(r"--\w[\w-]*(?: [A-Z{]\S*)? \((?:default|required)", flat)
    assert not mute, "a flag without a description"
