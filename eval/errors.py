"""The error of everything here that a user can fix."""


class ResultError(ValueError):
    """A result that can't be read or written, contradicts itself, or contradicts another."""
