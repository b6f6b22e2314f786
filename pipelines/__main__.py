"""Every command under one name: `pixel-decoders COMMAND ...` or `python -m pipelines COMMAND ...`.

This module does not import torch, so that the list of commands and a typo are answered at once.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines import __version__
from pipelines.runtime.command import exit_codes
from pipelines.runtime.errors import UserError
from pipelines.runtime.messages import show
from pipelines.runtime.provenance import SCRIPT

HOME = Path(__file__).parents[1]
EXAMPLES = """\
Examples:
  pixel-decoders pixelvae --data digits --out runs/first
  pixel-decoders sample runs/first --num 16"""
HINT = (
    "COMMAND --help shows a command's flags, --version the version. To complete in bash or zsh:"
    '\n  eval "$(pixel-decoders --completion)"'
)

# For bash, and for zsh after `bashcompinit`: flags come from --help, other words are files.
COMPLETION = """\
_pixel_decoders() {{
    local words=""
    if [ "$COMP_CWORD" = 1 ]; then
        words="{commands}"
    elif [[ "${{COMP_WORDS[COMP_CWORD]}}" == -* ]]; then
        words="$(pixel-decoders "${{COMP_WORDS[@]:1:COMP_CWORD-1}}" --help 2>/dev/null |
            grep -oE -- '--[a-z][a-z0-9-]*' | sort -u)"
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o bashdefault -o default -F _pixel_decoders pixel-decoders"""


class Command(NamedTuple):
    """A command and the module whose `main(argv)` runs it."""

    name: str
    module: str

    @property
    def summary(self) -> str:
        """The module's docstring up to a colon or full stop, read without an import."""
        source = (HOME / self.module.replace(".", "/")).with_suffix(".py").read_text("utf-8")
        words = (ast.get_docstring(ast.parse(source)) or "").split()
        return re.split("[.:](?: |$)", " ".join(words))[0]


def _commands(package: str, *names: str) -> list[Command]:
    return [Command(name, f"{package}.{name.replace('-', '_')}") for name in names]


GROUPS = {
    "Train a model": _commands("pipelines", "pixelcnn", "autoencoder", "pixelvae"),
    "Use a run": _commands(
        "pipelines",
        *("evaluate", "sample", "interpolate", "latents", "quality", "outliers", "compress"),
        "receptive-field",
    ),
    "Report on runs": _commands("eval", "leaderboard", "report", "compare"),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}


def overview() -> str:
    """Return the list of commands, by group, with one line each."""
    lines = [f"usage: {SCRIPT} COMMAND ...", ""]
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {one.name:<16} {one.summary}" for one in commands), ""]
    lines += [EXAMPLES, "", HINT]
    return "\n".join(lines)


def find(name: str) -> Command:
    """Return the command of this name, written with hyphens or underscores.

    >>> find("receptive_field").module
    'pipelines.receptive_field'
    >>> find("pixelvea")
    Traceback (most recent call last):
    pipelines.runtime.errors.UserError: there is no command pixelvea: did you mean pixelvae?
    """
    if command := COMMANDS.get(name.replace("_", "-")):
        return command
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    cure = f"did you mean {close[0]}?" if close else f"`{SCRIPT} --help` lists them"
    raise UserError(f"there is no command {name}: {cure}")


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command that the first word names, and return its exit code."""
    name, *words = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    with exit_codes():
        if name in ("--help", "-h"):
            show(overview())
        elif name == "--version":
            show(f"{SCRIPT} {__version__}")
        elif name == "--completion":
            show(COMPLETION.format(commands=" ".join(COMMANDS)))
        else:
            return importlib.import_module(find(name).module).main(words)
    return None


if __name__ == "__main__":
    sys.exit(main())
