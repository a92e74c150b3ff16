"""The one exception for input that a person can put right."""

from __future__ import annotations


class RotcheckError(ValueError):
    """Wrong input: its text is one line that names the value, the place and the cure.

    The command line prints the text and exits with 2; nothing has been written when it is raised.
    """


class SubjectError(RotcheckError):
    """The code under test raised, or answered with something that is not a tensor of the right shape."""
