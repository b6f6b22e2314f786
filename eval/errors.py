"""Errors of this package that a user can fix.

`for_user` asks a command to print the message alone, without a traceback; `agreed` says that all
processes of a distributed run raise the error together, so that one of them should report it.
"""


class ResultError(ValueError):
    """A result that can't be read or written, contradicts itself, or contradicts another."""

    for_user = True


class NonFiniteScoreError(ValueError):
    """An image's score is NaN or infinite, so that the mean over the set is undefined."""

    for_user = True
    agreed = True
