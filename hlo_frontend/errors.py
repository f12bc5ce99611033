"""The one exception that a user's bad input raises, anywhere in the project."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used; the message is one line: where, what was expected, what to do.

    The command line prints it and exits with status 2; a traceback never reaches the user.
    """
