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
from pipelines.networks import ImageSpec
from pipelines.runtime.errors import RelayedError, UserError
from pipelines.training.config import TrainConfig
from pipelines.training.devices import make_fabric

N = TypeVar("N", bound=torch.nn.Module)


_OF_EVAL = (NonFiniteScoreError, ResultError)  # the package eval knows nothing of UserError


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors that a user can mend into one sentence on stderr and exit code 2.

    Of several processes that meet the same one, the first says so. The others leave with 0, since
    Fabric kills the first as soon as another exits with an error.
    """
    try:
        yield
    except RelayedError:
        sys.exit(0)
    except (UserError, *_OF_EVAL) as error:
        agreed = getattr(error, "agreed", isinstance(error, NonFiniteScoreError))
        alike = agreed and dist.is_initialized() and dist.get_rank() > 0
        if alike:
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
