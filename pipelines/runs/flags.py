"""Flags that the commands over runs share, and how a command reads its own.

Imports no torch: a command reads its flags, and looks for the files that they name, at once.
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
    """Return how a flag is shown whose default, such as None, says nothing."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


Trust = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, hint("MODULE", "none")]
NewPicture = Annotated[Path | None, hint("FILE.png", "a new name in the run directory")]
DataFolder = Annotated[str, hint("DIR", "as in training")]


@dataclass(frozen=True)
class Flags(Bounded):
    """Flags of a command.

    Attributes:
        RENAMED: flags that once had another name, with their present one.
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
    """The images' place and the device."""

    data_dir: DataFolder = ""
    """Folder of the run's data set."""
    accelerator: Accelerator = "auto"
    """Kind of device."""
    trust: Trust = ()
    """Module of your own that the run's decoder, pipeline or data need, to be imported. Without
    it, reading a run runs no code but the toolkit's. Can be given several times."""


@dataclass(frozen=True)
class BatchFlags(WhereFlags):
    """The images' place, the device and its load."""

    score_batch: Positive = 64
    """Images scored or drawn at once."""


class Findings(NamedTuple):
    """What a command found: a text for the screen, and the files that it wrote."""

    text: str
    files: Sequence[Path] = ()

    def show(self) -> None:
        """Print the text, and then the files' names."""
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
        default: values of the flags that are not given, where they are not the class's own.

    Raises:
        UserError: a flag has another name by now.
        SystemExit: 2 for flags that can't be read, 0 after `--help`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for word in (word.partition("=")[0].replace("_", "-") for word in words):
        if word in config.RENAMED:
            raise UserError(f"{word} is called {config.RENAMED[word]} in this command: use that")
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
    """Raise a UserError for a file's name that ends in another suffix."""
    if file is not None and file.suffix != suffix:
        raise UserError(f"expected {name} to end in {suffix}, got {file}")
