"""Errors that a user can fix."""

from __future__ import annotations

from typing import ClassVar


class UserError(ValueError):
    """Error that a user can fix: the message says what was expected, what came, and what to do.

    A command prints the message on standard error and exits with code 2.

    Attributes:
        for_user: the message is for the user, and no traceback is needed. Packages that know
            nothing of this class mark their own errors with the same attribute.
        agreed: all processes of a distributed run raise the error at the same time, so that only
            the first one should report it.
    """

    for_user: ClassVar[bool] = True
    agreed: ClassVar[bool] = True


class RelayedError(UserError):
    """Error of the first process of a distributed run, which reports it: the others need not."""


class CheckpointError(UserError):
    """Error in a run directory. The message says what is wrong, and what to do."""

    agreed = False


class ConfigError(UserError):
    """Error in a configuration: a field has an impossible value, or does not exist."""


class DataError(UserError):
    """Error in the data. The message names the file and the cure."""

    agreed = False


class WriteError(UserError):
    """Error in writing a file: a full disk, a read-only folder, a name that is taken."""


class TakenError(WriteError):
    """Name of a new file that is taken, perhaps by another process since the last check."""
