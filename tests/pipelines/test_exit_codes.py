"""Exit codes: 0, 2 with one sentence, 130 or 143 after a signal, and 1 for a bug alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eval.errors import ResultError
from pipelines.runs.networks import checked
from pipelines.runtime.command import exit_codes
from pipelines.runtime.errors import RelayedError, UserError

ROOT = Path(__file__).parents[2]


def leave(error):
    with pytest.raises(SystemExit) as exit_, exit_codes():
        raise error
    return exit_.value.code


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("choose another"), "choose another"),
        (ResultError("a.json: no"), "a.json: no"),
        (FileNotFoundError(2, "No such file", "a/b"), "cannot use a/b: No such file"),
        (
            OSError(5, "Input/output error", "a", None, "b"),
            "cannot use a and b: Input/output error",
        ),
        (OSError(28, "No space left on device"), "the system: No space left on device"),
        (MemoryError(), "out of memory (): lower the batch size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory ([enforce fail] DefaultCPUAllocator: can't allocate memory)",
        ),
    ],
)
def test_what_a_user_can_fix_is_one_sentence(capsys, error, sentence):
    assert leave(error) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {sentence}")
    assert said.err.count("\n") == 1


def test_what_is_left_is_a_bug_that_says_so(capsys):
    assert leave(KeyError("x")) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("please report it with these lines and the command.\n")


def test_interrupts_and_relayed_errors_say_nothing(capsys):
    assert leave(KeyboardInterrupt()) == 130
    assert leave(RelayedError("told by the first process")) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", [-1, 1 << 62])
def test_a_network_that_cannot_be_built_names_the_flags(size):
    with pytest.raises(UserError, match="no network can be built from these flags"):
        checked(lambda config, spec: torch.nn.Linear(size, 1), None, None)  # pyright: ignore


# Children of one process, since importing takes seconds.
SCENARIOS = """
import os, signal, sys, time
from pathlib import Path
from pipelines.runtime.command import exit_codes
from pipelines.runtime.files import whole_file
from pipelines.runtime.lock import hold

def child(output):
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
    return None

def printing(size):
    with exit_codes():
        print("a" * size)

def writing(number):
    with exit_codes(), hold(Path(".")), whole_file(Path("file")) as stream:
        stream.write(b"part")
        os.kill(os.getpid(), number)
        time.sleep(60)

codes = []
reader, pipe = os.pipe()
os.close(reader)
for output, do in (
    ("/dev/full", lambda: printing(9)),
    ("/dev/full", lambda: printing(99_999)),
    (f"/dev/fd/{pipe}", lambda: printing(9)),
    (f"/dev/fd/{pipe}", lambda: printing(99_999)),
    ("out", lambda: printing(9)),
    ("/dev/null", lambda: writing(signal.SIGTERM)),
    ("/dev/null", lambda: writing(signal.SIGHUP)),
    ("/dev/null", lambda: writing(signal.SIGINT)),
):
    code = child(output)
    if code is None:
        do()
        sys.exit(0)
    codes.append(code)
print(codes)
"""


def test_full_and_closed_outputs_and_signals(tmp_path):
    """Nothing half-written is left, and no lock."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [sys.executable, "-c", SCENARIOS], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "[2, 2, 0, 0, 0, 143, 143, 130]\n", done.stderr
    assert [line.split(": ")[::2] for line in done.stderr.splitlines()] == 2 * [
        ["error", "No space left on device"]
    ]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_signal_during_an_import_is_not_a_bug(signal, code, capfd):
    with pytest.raises(SystemExit) as left, exit_codes():
        raise ImportError("initialization failed") from signal
    assert left.value.code == code
    assert capfd.readouterr().err == ""
