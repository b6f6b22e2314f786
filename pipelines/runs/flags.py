"""Flags that the commands over runs share, and the parsing of a command's flags.

This module does not import torch, so that a command reads its flags and finds its files at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import tyro

from pipelines.runtime.config import Accelerator, Bounded, Positive
from pipelines.runtime.errors import UserError
from pipelines.runtime.messages import show
from pipelines.runtime.output import expanded
from pipelines.runtime.provenance import prog

C = TypeVar("C", bound="Flags")


def hint(metavar: str, default: str) -> Any:
    """Return the display of a flag in --help, for a default that says nothing, such as None."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


Trust = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, hint("MODULE", "none")]
NewPicture = Annotated[Path | None, hint("FILE.png", "a new name in the run directory")]
DataFolder = Annotated[str, hint("DIR", "as in training")]


@dataclass(frozen=True)
class Flags(Bounded):
    """Flags of a command.

    Attributes:
        RENAMED: former names of flags, with the current ones.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "--device": "--accelerator",
        "--batch-size": "--score-batch",
    }


@dataclass(frozen=True)
class RunFlags(Flags):
    """Flags of a command over a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, or the name of a model that comes with the toolkit, such as mnist-gated."""


@dataclass(frozen=True)
class WhereFlags(Bounded):
    """Data folder and device."""

    data_dir: DataFolder = ""
    """Folder of the run's data set."""
    accelerator: Accelerator = "auto"
    """Kind of device."""
    trust: Trust = ()
    """Module of your own to import for the run's decoder, pipeline or data. Without it, only the
    toolkit's own code runs. Can be given several times."""


@dataclass(frozen=True)
class BatchFlags(WhereFlags):
    """Data folder, device and batch size."""

    score_batch: Positive = 64
    """Number of images scored or drawn at once."""


class Findings(NamedTuple):
    """Output of a command: a text for the screen, and the files that it wrote."""

    text: str
    files: Sequence[Path] = ()

    def show(self) -> None:
        """Print the text, then the names of the files."""
        show("\n".join(filter(None, [self.text, *map(str, self.files)])))


def parse(
    config: type[C],
    module: str,
    doc: str | None,
    argv: Sequence[str] | None,
    default: C | None = None,
) -> C:
    """Read a command's flags, with ~ expanded in their paths.

    Args:
        config: class of the flags.
        module: name of the command's module.
        doc: description for `--help`.
        argv: words of the command line; `sys.argv[1:]` if None.
        default: defaults of the flags, in place of those of the class.

    Raises:
        UserError: a flag has been renamed.
        SystemExit: 2 for flags that can't be read, 0 after `--help`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for word in (word.partition("=")[0].replace("_", "-") for word in words):
        if word in config.RENAMED:
            raise UserError(f"{word} is now called {config.RENAMED[word]}: use that")
    read = tyro.cli(
        config,
        args=words,
        prog=prog(module),
        description=doc,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return expanded(read)


def check_suffix(name: str, file: Path | None, suffix: str) -> None:
    """Raise a UserError for a file name with another suffix."""
    if file is not None and file.suffix != suffix:
        raise UserError(f"expected {name} to end in {suffix}, got {file}")
