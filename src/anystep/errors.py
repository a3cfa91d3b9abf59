"""Errors a user can act on. Each is one line that shows the call that was meant."""


class AnystepError(Exception):
    """Base of every error this library raises on purpose."""


class UsageError(AnystepError, ValueError):
    """The call itself is wrong: an unknown name, an option that does not exist, a budget of zero."""


class ModelError(AnystepError):
    """A model file cannot be used: missing, truncated, corrupt, of a wrong hash or an unknown architecture."""


class Unsupported(AnystepError):
    """The method needs something this process lacks; the message says what would work instead."""


class JournalError(AnystepError):
    """A journal cannot be used: damaged, locked, written by a newer version, or by another run."""
