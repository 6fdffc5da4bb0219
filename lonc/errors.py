"""The errors that lonc raises for a person or a caller to act on."""

from __future__ import annotations


class LoncError(Exception):
    """Base of every error that lonc raises on purpose."""


class UsageError(LoncError):
    """Something that a person must change; the text says what, in one line.

    The commands print it and exit with status 2.
    """


class ConfigError(UsageError):
    """A configuration that cannot be used.

    `problems` holds one line for each thing that is wrong, in the order in which they were found.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ListenError(UsageError):
    """A listening socket cannot be opened; the text names its path and the reason."""
