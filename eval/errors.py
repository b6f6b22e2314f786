"""The errors of everything here that a user can fix."""


class ResultError(ValueError):
    """A result that can't be read or written, contradicts itself, or contradicts another."""


class NonFiniteScoreError(ValueError):
    """An image scored a number that is none, so that no mean over the set would mean anything."""
