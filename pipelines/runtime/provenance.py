"""The command line that is running."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable


def command(*more: str) -> str:
    """Return the command line as one would type it, with more words at its end."""
    return join(["python", *sys.orig_argv[1:], *more])


def join(words: Iterable[str]) -> str:
    r"""Quote words for a shell, those with bytes that are not UTF-8 for bash or zsh.

    >>> print(join(["python", "a b", "caf\udce9's"]))
    python 'a b' $'caf\xe9\x27s'
    """
    return " ".join(map(_quote, words))


def _quote(word: str) -> str:
    data = os.fsencode(word)
    try:
        data.decode()
        return shlex.quote(word)
    except UnicodeDecodeError:
        shown = re.sub(rb"[^\w./= -]", lambda found: b"\\x%02x" % found[0][0], data)
        return f"$'{shown.decode()}'"
