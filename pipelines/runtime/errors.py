"""Errors that a user can fix."""

from __future__ import annotations

from typing import ClassVar


class UserError(ValueError):
    """A user can fix this: the message says what was expected, what came, and what to do.

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
    """The first process of a distributed run failed, and reports why: the others need not."""


class CheckpointError(UserError):
    """Something is wrong with a run directory. The message says what, and what to do."""

    agreed = False


class ConfigError(UserError):
    """A field of a configuration has an impossible value, or does not exist."""


class DataError(UserError):
    """Data that cannot be used; the message names the file and the cure."""

    agreed = False


class WriteError(UserError):
    """A file can't be written: a full disk, a read-only folder, a name that is taken."""


class TakenError(WriteError):
    """A new file's name is taken, perhaps since a moment ago by another process."""
