"""Errors that any command may raise."""


class UsageError(ValueError):
    """Options that do not fit; the message says what to do."""
