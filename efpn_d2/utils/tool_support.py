"""Helpers of the command-line tools: argument types, error messages, figures without a window."""

import argparse
import os
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Return a type for :mod:`argparse`: integers from ``least`` on."""

    def integer(text: str) -> int:
        """Parse and check an integer."""
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"'{text}' must be a whole number, at least {least}")
        return value

    return integer


not_negative = at_least(0)
positive = at_least(1)


def error_text(error: Exception) -> str:
    """Describe an error and what to do, including system errors with only a number."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    path = f"'{error.filename}'"
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist: check the path."
    if isinstance(error, PermissionError):
        return f"{path} cannot be read or written: change its permissions, or choose another path."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, but must be a file."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{path} is not a folder, or is below a file: choose another path."
    return f"{path}: {(error.strerror or 'it cannot be read or written').lower()}."


def draw_without_window() -> None:
    """Restrict Matplotlib to drawing into files, in this process and its children.

    Call this at the start of a command, before Matplotlib is imported: the import fails if
    ``MPLBACKEND`` names a backend that is not installed, as inherited from a notebook.
    """
    os.environ["MPLBACKEND"] = "agg"
