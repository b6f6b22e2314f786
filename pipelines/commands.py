"""What every command shares: errors that a user can mend, exit codes, the Fabric it runs in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from eval.nll import NonFiniteScoreError
from eval.results import ResultError
from pipelines.data.sets import DataError
from pipelines.networks import ImageSpec
from pipelines.training.checkpoint import CheckpointError
from pipelines.training.config import TrainConfig
from pipelines.training.devices import make_fabric
from pipelines.training.fit import NonFiniteError

N = TypeVar("N", bound=torch.nn.Module)


class UserError(ValueError):
    """Flags that don't fit together; the message says which, and what to do."""


_AGREED = (UserError, NonFiniteError, NonFiniteScoreError)
_MENDABLE = (*_AGREED, DataError, CheckpointError, ResultError)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors that a user can mend into one sentence on stderr and exit code 2.

    Of several processes that meet the same one, the first says so. The others leave with 0, since
    Fabric kills the first as soon as another exits with an error.
    """
    try:
        yield
    except _MENDABLE as error:
        agreed = isinstance(error, _AGREED)  # met by all processes at once
        alike = agreed and dist.is_initialized() and dist.get_rank() > 0
        if alike or getattr(error, "relayed", False):
            sys.exit(0)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def launch(config: TrainConfig) -> Fabric:
    """The launched Fabric of a command; devices that are not to be had are the user's to mend."""
    try:
        return make_fabric(config)
    except ValueError as error:
        raise UserError(str(error)) from error


def checked(build: Callable[[Any, ImageSpec], N], config: Any, spec: ImageSpec) -> N:
    """Build a network; flags that none can be built from are the user's to mend."""
    try:
        return build(config, spec)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
