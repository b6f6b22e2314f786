"""Any flag, file and array, of every command: a result or one sentence, and nothing else touched.

Each case is drawn from SEED, the command and a number, and runs in a process and a folder of its
own. It must end with exit code 0, 2, 130 or 143, without a traceback, with one sentence that names
what is at fault, and with every file that was there before as it was. `python -m tests.fuzz` runs
single cases.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from tests.fuzz import cases, running

SEED = 17
COUNT = 40  # cases of each command

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a forked process")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind of model, a few steps long, and data of every kind."""
    for name in cases.COMMANDS:
        importlib.import_module(name.split()[0])
    template = tmp_path_factory.mktemp("fuzz") / "world"
    running.prepare(template)
    return template


def check(case: cases.Case, faults: list[str], ended: running.Ended, repeat: str) -> None:
    assert not faults, (
        f"{'; '.join(faults)} (exit code {ended.code})\n{running.describe(case)}\n{ended.err}\n"
        f"to repeat it: python -m tests.fuzz --seed {SEED} {repeat}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", cases.COMMANDS)
def test_every_command_works_where_nothing_is_wrong(command, world, tmp_path):
    case = cases.sound_case(command, 0, SEED)
    faults, ended = running.run(case, cases.generator(command, 0, SEED), world, tmp_path)
    check(case, faults, ended, f"--command '{command}' --first 0 --count 1 --sound")
    assert ended.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", cases.COMMANDS)
@pytest.mark.parametrize("tenth", range(0, COUNT, 10))
def test_any_flag_and_file_of_every_command(command, tenth, world, tmp_path):
    for number in range(tenth, tenth + 10):
        case, draw = cases.draw_case(command, number, SEED)
        folder = tmp_path / str(number)
        folder.mkdir()
        faults, ended = running.run(case, draw, world, folder)
        check(case, faults, ended, f"--command '{command}' --first {number} --count 1")


def crash() -> None:
    raise KeyError("x")


def change() -> None:
    Path("kept").write_text("changed")


def delete() -> None:
    Path("kept").unlink()


def leave() -> None:
    Path(".file.unfinished").touch()


def blame_nothing() -> None:
    print("error: something is wrong", file=sys.stderr)
    sys.exit(2)


def write_and_fail() -> None:
    Path("new.png").touch()
    print("error: --num is wrong", file=sys.stderr)
    sys.exit(2)


@pytest.mark.parametrize(
    ("work", "fault"),
    [
        (crash, "a traceback"),
        (change, "kept was changed"),
        (delete, "kept was deleted"),
        (leave, ".file.unfinished was left behind"),
        (blame_nothing, "the sentence does not name the flag or file at fault"),
        (write_and_fail, "new.png was written by a command that failed"),
        (lambda: sys.exit(3), "exit code 3"),
        (lambda: None, None),
    ],
)
def test_the_judge_sees_every_kind_of_fault(work, fault, tmp_path):
    folder, logs = tmp_path / "world", tmp_path / "logs"
    for path in (folder, logs):
        path.mkdir()
    (folder / "kept").write_text("as it was")
    before = running.snapshot(folder)
    ended = running.fork(work, folder, logs)
    case = cases.Case("pipelines.sample", 0, blamed={"--label"})
    faults = running.judge(case, before, running.snapshot(folder), ended)
    assert faults == [] if fault is None else fault in faults


def test_a_case_is_a_function_of_its_seed_and_number():
    one, other = (cases.draw_case("pipelines.sample", 3, SEED)[0] for _ in range(2))
    assert one == other
    assert one != cases.draw_case("pipelines.sample", 4, SEED)[0]
