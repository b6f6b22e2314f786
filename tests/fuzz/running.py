"""Run a case in a forked process, in a copy of the world, and judge what it did."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from pipelines.runtime.provenance import join
from tests.fuzz.cases import TRAINING, Case, damage
from tests.fuzz.world import build, call

PATIENCE = 20.0  # seconds, before a case is interrupted as by Ctrl-C
GRACE = 60.0  # seconds that it then has
MEMORY = 6 * 2**30
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LEFTOVER = re.compile(r"\..*\.(unfinished|tmp)|\.lock|.*\.part")


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # negative: by a signal
    out: str
    err: str
    seconds: float
    hung: bool


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what each path below a folder is: its type, mode, and content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = (status.st_mode, content)
    return found


def fork(
    work: Callable[[], object],
    folder: Path,
    logs: Path,
    patience: float = PATIENCE,
    number: int = signal.SIGINT,
) -> Ended:
    """Run a function in a child process and folder, as the interpreter runs a script.

    Args:
        work: the function.
        folder: the current folder of the child.
        logs: folder for what it prints.
        patience: seconds until it gets a signal.
        number: the signal.
    """
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads, which wait
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child is ready for them
        pid = os.fork()
    if pid == 0:
        _child(work, folder, logs)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    code, hung = _wait(pid, began, patience, number)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # workers, if any are left
    out, err = ((logs / name).read_text(errors="surrogateescape") for name in ("out", "err"))
    return Ended(code, out, err, time.monotonic() - began, hung)


def _wait(pid: int, began: float, patience: float, number: int) -> tuple[int, bool]:
    interrupted = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        waited = time.monotonic() - began
        if waited > patience and not interrupted:
            os.kill(pid, number)
            interrupted = True
        if waited > patience + GRACE:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL, True
        time.sleep(0.01)


def _child(work: Callable[[], object], folder: Path, logs: Path) -> None:
    code: object = 1
    try:
        os.setsid()
        signal.alarm(int(2 * (PATIENCE + GRACE)))  # if nobody is left to end this process
        os.chdir(folder)
        os.environ.update(HOME=str(folder / "home"), XDG_CACHE_HOME=str(folder / "home/cache"))
        os.environ.update(dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"))
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(logs / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(file, number)
        sys.stdout, sys.stderr = (
            open(n, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
            for n in (1, 2)
        )
        sys.stdin = open(os.devnull)  # noqa: SIM115
        warnings.resetwarnings()
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", ".*found in sys.modules")  # it is: that makes this fast
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + _virtual(), resource.RLIM_INFINITY))
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            work()
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        except KeyboardInterrupt as interrupt:
            code = 130
            frames = traceback.extract_tb(interrupt.__traceback__)
            if any(frame.name == "main" for frame in frames):  # not while it is being imported
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _virtual() -> int:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def prepare(template: Path) -> None:
    """Make the world in a folder, unless it is there."""
    if template.exists():
        return
    logs = template.with_name(template.name + "-logs")
    for folder in (template, logs):
        folder.mkdir()
    made = fork(lambda: build(template), template, logs, patience=300.0)
    if made.code:
        raise RuntimeError(f"the world was not made: {made.err}")


def run(case: Case, draw: Random, template: Path, folder: Path) -> tuple[list[str], Ended]:
    """Run a case; returns what is wrong, and how it ended."""
    world, logs = folder / "world", folder / "logs"
    shutil.copytree(template, world, symlinks=True)
    logs.mkdir()
    done = damage(case, world, draw)
    case.damaged = done
    before = snapshot(world)
    patience, name = case.signal or (PATIENCE, "SIGINT")
    number = getattr(signal, name)
    ended = fork(lambda: call(case.module, *case.words), world, logs, patience, number)
    return judge(case, before, snapshot(world), ended), ended


def describe(case: Case) -> str:
    """Return the command, as it can be typed into a shell, and the damage done before."""
    line = f"python -m {case.module} {join(case.words)}"
    line += "".join(f"\n  after: {done}" for done in case.damaged)
    return line + (f"\n  with {case.signal[1]} after {case.signal[0]:.3f} s" if case.signal else "")


def judge(
    case: Case,
    before: dict[str, tuple[object, ...]],
    after: dict[str, tuple[object, ...]],
    ended: Ended,
) -> list[str]:
    """Return what is wrong with a command's end, in words."""
    faults = []
    if ended.hung:
        faults.append("it went on after an interrupt")
    accepted = {0, 2, 130, 143, -signal.SIGTERM}  # the last one is a shell's 143
    if case.module in ("eval.leaderboard", "eval.report") and "left out: " in ended.err:
        accepted.add(1)  # as these two promise
    if ended.code not in accepted:
        faults.append(f"exit code {ended.code}")
    if ended.code and not case.blamed:
        faults.append(f"exit code {ended.code} without anything wrong")
    if "Traceback" in ended.err:
        faults.append("a traceback")
    if ended.code == 2 and not _is_usage(ended.err):
        errors = re.findall(r"^error: (.*)", ended.err, re.M)
        if len(errors) != 1:
            faults.append(f"{len(errors)} sentences that begin with 'error: '")
        elif not _names(errors[0] + ended.err.partition("error: ")[2], case):
            faults.append("the sentence does not name the flag or file at fault")
    allowed = _may_write(case)
    for path, was in before.items():
        if after.get(path) != was and not allowed(path):
            faults.append(f"{path} was {'changed' if path in after else 'deleted'}")
    for path in sorted(set(after) - set(before)):
        if LEFTOVER.fullmatch(Path(path).name):
            faults.append(f"{path} was left behind")
        elif ended.code == 2 and _is_output(case, path):
            faults.append(f"{path} was written by a command that failed")
    return faults


def _is_usage(err: str) -> bool:
    return "For full helptext" in err and "error: " not in err  # tyro's own box


def _names(sentence: str, case: Case) -> bool:
    if "out of memory" in sentence or "did training diverge" in sentence:
        return True
    return any(word and word in sentence for word in case.blamed) or "--" in sentence


def _is_output(case: Case, path: str) -> bool:
    return (
        case.module not in (*TRAINING, "pipelines.quality", "pipelines.outliers")
        and ".packed" not in path
        and not path.startswith("home")
    )


def _may_write(case: Case) -> Callable[[str], bool]:
    """Return what tells whether it is a command's job to write to an existing path."""
    named = [word.split("=", 1)[1] for word in case.words if word.startswith(("--out=", "--into="))]
    if case.module in TRAINING and "--resume" in case.words:
        runs = [
            os.path.normpath("runs/pixelcnn" if name == "linked-run" else name) for name in named
        ]
        return lambda path: any(path == run or path.startswith(run + "/") for run in runs)
    if case.module == "pipelines.latents":
        run = case.words[0].replace("linked-run", "runs/pixelcnn")
        return lambda path: path == os.path.join(run, "result.json")
    if case.module.startswith("eval."):
        return lambda path: path in {os.path.normpath(name) for name in named}
    return lambda path: False
