"""Training commands: a configuration, its presets, and a model built from it.

command line ─ parse ─> Config ─ load ─> Splits ─ build ─> Model ─ fit ─> weights
                                                   score, pictures ─> result.json, a table
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from pipelines.data.config import DATA_NAMES
from pipelines.runs.config import RunConfig
from pipelines.runs.decoders import refuse_other_parts
from pipelines.runs.record import ImageSpec, RunRecord, config_of, read_record
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import flag, is_given, suggestion, value_of
from pipelines.runtime.errors import CheckpointError, ConfigError, UserError
from pipelines.runtime.files import at_home
from pipelines.runtime.provenance import prog
from pipelines.runtime.user_modules import import_name

C = TypeVar("C", bound=RunConfig)

# The toolkit's own. A user's is package.module:name.
PIPELINES = {name: f"pipelines.{name}:PIPELINE" for name in ("pixelcnn", "autoencoder", "pixelvae")}
# Runs of `pipelines.train`, whose model no command line describes.
OWN = {"own": "pipelines.runs.own:PIPELINE"}

FIRST_FLAGS = """Start with: --data NAME and --data-dir DIR (what to train on), --decoder NAME,
--epochs N or --steps N, --preset NAME, --out DIR."""


@dataclass(frozen=True)
class Pipeline(Generic[C]):
    """A training command.

    Attributes:
        name: name of the command `python -m pipelines.<name>`, or a user's package.module:name.
        config: class of the flags.
        presets: sets of defaults by name. One named like a data set is its default.
        build: function that makes a model from a configuration and the specification of images.
        doc: description, for `--help`.
        examples: command lines, for `--help`.
    """

    name: str
    config: type[C]
    presets: Mapping[str, C]
    build: Callable[[C, ImageSpec], Any]
    doc: str = ""
    examples: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Name in run directories and results: the part after the colon."""
        return self.name.rpartition(":")[2]

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Run the command: exit code 0, or 2 and one sentence for an error a user can fix."""
        with exit_codes():
            self.train(self.parse(argv))

    def train(self, config: C) -> Any:
        """Train, score and draw, and write everything to the run directory.

        Returns:
            The `Result` in the first process, None in the others.
        """
        from pipelines.runs.train import train  # imports torch, which takes seconds: flags first

        return train(self, config)

    def parse(self, argv: Sequence[str] | None = None) -> C:
        """Return the configuration of a command line, over the preset of its data set.

        With `--resume`, over the configuration of the run in `--out`.

        Raises:
            UserError: a flag is unknown, does not apply, or has an impossible value.
            SystemExit: 2 for a flag that can't be read, 0 after `--help`.
        """
        args = list(sys.argv[1:] if argv is None else argv)
        named = {name: value_of(args, name) for name in ("data", "decoder", "likelihood")}
        default = self._default(args).but(**{k: v for k, v in named.items() if v is not None})
        refuse_other_parts(default.decoder, args)
        config = tyro.cli(
            tyro.conf.OmitArgPrefixes[self.config],
            args=args,
            default=default,
            prog=prog(f"pipelines.{self.name}") if ":" not in self.name else self.stem,
            description=self._description(),
        )
        for name, reason in config.unused().items():
            if is_given(args, name):
                raise ConfigError(f"{flag(name)} has no effect {reason}: leave it out")
        return config

    def _default(self, args: Sequence[str]) -> C:
        """Return the configuration whose values the flags replace."""
        out = value_of(args, "out")
        if out and "--resume" in args:
            record = read_record(at_home(out))
            if record.pipeline != self.name:
                cure = f"python -m pipelines.{record.pipeline}"
                if record.pipeline in OWN:
                    cure = "pipelines.train(…, resume=True)"
                raise CheckpointError(f"{out} is a run of {record.pipeline}: resume it with {cure}")
            for part in ("decoder", "likelihood", "data"):
                if ":" in (name := str(record.config.get(part, ""))):
                    named = value_of(args, part) or ""
                    require_trust(name, part, [named], f"give --{part} {name} again")
            return config_of(record, self.config, Path(out))
        default = self.config()
        name = value_of(args, "preset")
        if name is None:
            return self.presets.get(value_of(args, "data") or default.data.data, default)
        if name not in self.presets:
            raise UserError(
                f"--preset {name} is unknown to {self.stem}{suggestion(name, self.presets)}"
            )
        return self.presets[name]

    def _description(self) -> str:
        named = ", ".join(name for name in self.presets if name not in DATA_NAMES)
        lines = [self.doc.strip(), FIRST_FLAGS.replace("\n", " ")]
        lines += ["Examples:\n" + "\n".join(f"  {one}" for one in self.examples)] * bool(
            self.examples
        )
        return "\n\n".join([*lines, f"Presets: {named}."] if named else lines)


def find_pipeline(name: str, trusted: Sequence[str] = ()) -> Pipeline[Any]:
    """Return the pipeline of a run, by its name.

    Args:
        name: name of one of the toolkit's own, or package.module:name.
        trusted: modules that the user allows to be imported.

    Raises:
        UserError: there is no such pipeline, or its module is not trusted.
    """
    if name in PIPELINES | OWN:
        found = import_name((PIPELINES | OWN)[name], "the pipeline")
    else:
        require_trust(name, "pipeline", trusted)
        found = import_name(name, "the pipeline")
    if not isinstance(found, Pipeline):
        raise UserError(f"expected {name} to be a Pipeline, got a {type(found).__name__}")
    return found


def require_trust(name: str, what: str, trusted: Sequence[str], cure: str = "") -> None:
    """Raise a UserError unless the user trusts the module of a part of a run.

    Reading a run directory runs no code that the user has not asked to import.

    Args:
        name: package.module:name.
        what: the part, such as "decoder".
        trusted: modules, or names in them, that the user trusts.
        cure: advice in place of `--trust`.
    """
    if ":" not in name:
        raise CheckpointError(f"the run has the {what} {name!r}, which this version does not know")
    module = name.partition(":")[0]
    allowed = [one.partition(":")[0] for one in trusted]
    if not any(module == one or module.startswith(one + ".") for one in allowed):
        cure = cure or f"give --trust {module} to import it"
        raise UserError(f"this run's {what} is {name}, which is not part of the toolkit: {cure}")


def trust_parts(record: RunRecord, trusted: Sequence[str]) -> None:
    """Raise a UserError unless the user trusts the modules of a run's decoder and likelihood."""
    for part in ("decoder", "likelihood"):
        if ":" in (name := str(record.config.get(part, ""))):
            require_trust(name, part, trusted)
