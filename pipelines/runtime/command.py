"""Exit codes of every command, and the sentence that reports an error its user can fix.

Exit codes: 0 for success, 2 with one sentence for an error that the user can fix, 130 and 143 after
SIGINT and SIGTERM (or SIGHUP), and 1 with a traceback for a bug in this toolkit.
"""

from __future__ import annotations

import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from pipelines.runtime.errors import RelayedError, UserError
from pipelines.runtime.messages import drop_pending, escape_unprintable, say

_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
_LOST_PROCESS = ("gloo", "NCCL", "recvValue", "Connection closed by peer", "Connection reset")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Run a command: report an error that its user can fix as one sentence on standard error.

    When several processes meet the same error, only the first reports it. The others exit with 0,
    since Fabric kills the first process as soon as another one exits with an error.
    """
    escape_unprintable()
    try:
        with _terminated_cleanly():
            yield
            _flush_output()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (code := _interrupted(error)) is not None:
            sys.exit(code)
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            drop_pending(sys.stdout)
            sys.exit(0)
        _leave(error)


def _interrupted(error: BaseException | None) -> int | None:
    """Return the exit code of a signal that a library turned into another error, or None.

    A compiled module that is interrupted during its import raises an ImportError instead.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 1
        error = error.__cause__
    return None


def _leave(error: Exception) -> NoReturn:
    """Report the error, unless the first process reports it, and exit."""
    group = _process_group()
    lost = group is not None and _is_of_lost_process(error)
    follows = group is not None and group.get_rank() > 0
    agreed = getattr(error, "agreed", False)
    if isinstance(error, RelayedError) or (follows and (agreed or lost)):
        sys.exit(0)
    sentence = "another process of this run has ended: see above" if lost else explain(error)
    if sentence is not None:
        say(f"error: {sentence}")
        sys.exit(2)
    say("".join(traceback.format_exception(error)), end="")
    say("This is a bug in pixel-decoders: please report it with these lines and the command.")
    sys.exit(1)


def explain(error: Exception) -> str | None:
    """Return one sentence for an error that a user can fix, or None for a bug.

    An error is for the user if its class says so with `for_user`, which works without importing
    the packages that raise it: they take seconds to import, and know nothing of this one.

    >>> explain(PermissionError(13, "Permission denied", "runs/a/config.json"))
    'cannot use runs/a/config.json: Permission denied'
    >>> explain(KeyError("x")) is None
    True
    """
    if getattr(error, "for_user", False):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"cannot use {' and '.join(named)}: {reason}" if named else f"the system: {reason}"
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return f"out of memory ({first}): lower the batch size, or take a smaller model or image"
    return None


def _process_group() -> Any:
    """Return torch.distributed if this process is one of several, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def _is_of_lost_process(error: Exception) -> bool:
    """Return whether a collective failed because another process is gone."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST_PROCESS)


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit, so that unfinished files and locks are removed."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # not ignored, as under nohup
                before[number] = signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(143)


def _flush_output() -> None:
    """Flush standard output while an error can still be reported."""
    output = sys.stdout
    if output is None:  # closed by the shell's >&-
        return
    try:
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_pending(output)
        raise UserError(f"cannot write to standard output: {error.strerror}") from error


def _reader_is_gone() -> bool:
    """Return whether standard output is a pipe that nobody reads any more, as after `| head`."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return False
