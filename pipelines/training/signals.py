"""Signals: SIGTERM, SIGINT, SIGUSR1 and SIGHUP end a run at its next step, with everything saved.

The handler only records the signal. The training loop checks for it between two steps, when
weights, optimizer and logs agree with one another. A second signal exits at once, and only the last
checkpoint remains.

Exit codes: 130 after SIGINT (Ctrl-C); 143 after SIGTERM, after SIGUSR1, which batch systems send as
a warning before they pre-empt a job, and after SIGHUP, which means that the terminal has closed. A
run under `nohup` ignores SIGHUP. A second SIGHUP does not exit at once, since the kernel and the
shell each send one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines.runtime.provenance import SCRIPT, by_script, join

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGHUP: 143}


class Interrupts:
    """Context manager that records the first signal in `received`."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def flags(self) -> list[float]:
        """Return [stopped by SIGINT, stopped by another signal], to be summed over processes."""
        interrupted = self.received is signal.SIGINT
        return [float(interrupted), float(self.received is not None and not interrupted)]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGHUP:
                return
            os._exit(CODES[signal.Signals(number)])
        self.received = signal.Signals(number)
        said = f"\n{self.received.name}: saving after this step; again to exit at once\n"
        # print() is not safe here: the signal may have come in the middle of another print
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, said.encode())

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in CODES:
                before = signal.getsignal(number)
                if number == signal.SIGHUP and before is signal.SIG_IGN:  # nohup
                    continue
                self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def resume_command(run_dir: Path, argv: list[str] | None = None) -> str:
    """Return the exact command that resumes this run, whatever started it.

    Args:
        run_dir: the run directory.
        argv: words that started this process; its own if None.

    >>> resume_command(Path("runs/a b"), ["python", "-m", "pipelines.pixelvae", "--out", "x"])
    "python -m pipelines.pixelvae --out 'runs/a b' --resume"
    """
    torchrun = argv is None and "TORCHELASTIC_RUN_ID" in os.environ
    if argv is None:
        argv = [SCRIPT, *sys.argv[1:]] if by_script() and not torchrun else sys.orig_argv
    kept: list[str] = []
    skip_next = False
    for word in argv:
        if skip_next:
            skip_next = False
        elif word == "--out":
            skip_next = True
        elif word not in ("--resume", "--no-resume") and not word.startswith("--out="):
            kept.append(word)
    if torchrun:
        kept = torchrun_words(kept)
    return join([*kept, "--out", str(run_dir), "--resume"])


def torchrun_words(words: list[str]) -> list[str]:
    """Return the torchrun that started a worker, `python -u -m module …`.

    >>> os.environ["LOCAL_WORLD_SIZE"] = os.environ["WORLD_SIZE"] = "2"
    >>> torchrun_words(["python", "-u", "-m", "pipelines.pixelvae", "--steps", "9"])
    ['torchrun', '--nproc-per-node=2', '--nnodes=1', '-m', 'pipelines.pixelvae', '--steps', '9']
    >>> del os.environ["LOCAL_WORLD_SIZE"], os.environ["WORLD_SIZE"]
    """
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // local
    rest = [word for word in words[1:] if word != "-u"]
    return ["torchrun", f"--nproc-per-node={local}", f"--nnodes={nodes}", *rest]
