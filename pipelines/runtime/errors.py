"""Errors that a user can fix."""

from __future__ import annotations

from typing import ClassVar


class UserError(ValueError):
    """A user can fix this: the message says what was expected, what came, and what to do.

    A command that meets one prints the message on standard error and exits with code 2.

    Attributes:
        agreed: whether all processes of a distributed run meet it at the same time, so that the
            first one alone should report it.
    """

    agreed: ClassVar[bool] = True


class RelayedError(UserError):
    """The first process of a distributed run failed, and reports why: the others need not."""
