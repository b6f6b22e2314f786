"""Worker processes of packing.

A thread per worker writes a task to it and waits for the answer. A worker that dies for any reason
closes its pipes. Then its thread raises, all other workers are killed, and the caller gets one
sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from pipelines.data import decoding
from pipelines.runtime.errors import DataError

Task = dict[str, Any]
Damages = list[tuple[int, str]]  # row, and what is wrong with it
Results = Generator[tuple[Task, Damages], None, None]

# Python puts the working folder ('') first on the path, where a user's `eval.py` would hide ours.
START = (
    "import sys; sys.path = [place for place in sys.path if place]; "
    f"from {decoding.__name__} import main; main()"
)


def run_here(tasks: list[Task], setup: dict[str, Any]) -> Results:
    """Do all tasks in this process."""
    rules = decoding.Rules(**{name: setup[name] for name in decoding.Rules._fields})
    with open(setup["target"], "r+b") as target:
        for task in tasks:
            yield task, decoding.fill(target, setup["offset"], rules, task)


def run_workers(tasks: list[Task], setup: dict[str, Any], count: int) -> Results:
    """Give every task to the next idle one of `count` workers; results are in the order of tasks.

    Raises:
        DataError: a worker died or failed
    """
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    own = threading.local()
    count = min(count, len(tasks))
    pool = ThreadPoolExecutor(count, initializer=lambda: setattr(own, "worker", idle.get()))
    with contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, cancel_futures=True)
        for _ in range(count):
            worker = _Worker(setup)
            stack.callback(worker.end)  # before the shutdown, to wake the waiting thread
            idle.put(worker)
        yield from zip(tasks, pool.map(lambda task: own.worker.ask(task), tasks), strict=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """A process that decodes, in `pipelines.data.decoding.main`."""

    def __init__(self, setup: dict[str, Any]):
        path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.setup: dict[str, Any] | None = setup

    def ask(self, task: Task) -> Damages:
        """Run one task.

        Raises:
            DataError: the worker died, now or earlier
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        answer = ""
        with contextlib.suppress(OSError, ValueError):  # a broken pipe: the worker is dead
            if self.setup is not None:
                print(json.dumps(self.setup), file=stdin)
            self.setup = None
            print(json.dumps(task), file=stdin, flush=True)
            answer = stdout.readline()
        if not answer.endswith("\n"):
            raise DataError(self._cause_of_death())
        return [(row, reason) for row, reason in json.loads(answer)]

    def end(self) -> None:
        """Kill the process; the results of finished tasks are written."""
        self.process.kill()
        self.process.wait()
        for pipe in filter(None, (self.process.stdin, self.process.stdout, self.errors)):
            with contextlib.suppress(OSError):
                pipe.close()

    def _cause_of_death(self) -> str:
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its pipes and still runs
            self.process.kill()
            code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
        else:
            how = f"failed ({lines[-1] if lines else f'exit code {code}'})"
        return (
            f"a process that packs images {how}: free disk space and memory, then run the command "
            "again"
        )
