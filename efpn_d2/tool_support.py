"""What the command-line tools share: arguments, errors as sentences, figures without a window."""

import argparse
import os
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A type for :mod:`argparse`: whole numbers from ``least`` on."""

    def integer(text: str) -> int:
        """The number that ``text`` says."""
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
    """What is wrong and what to do, also of an error that the system raised by a number."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    path = f"'{error.filename}'"
    if isinstance(error, FileNotFoundError):
        return f"{path} is not there: check the path."
    if isinstance(error, PermissionError):
        return f"{path} may not be read or written: change its permissions, or choose another."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, but must be a file."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{path} is in the way, or on the way, of a folder and is none: choose another."
    return f"{path}: {(error.strerror or 'it cannot be read or written').lower()}."


def draw_without_window() -> None:
    """Let Matplotlib draw into files alone, in this process and in those that it starts.

    For the start of a command, as long as Matplotlib is not imported: that fails if ``MPLBACKEND``
    names what is not installed here, and notebooks leave such a value to the commands they run.
    """
    os.environ["MPLBACKEND"] = "agg"
