"""Matplotlib figures as files that look alike on every machine."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is needed: importing this module stays cheap
    from matplotlib.figure import Figure


FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

_LETTER = 0.0082  # inches of an average letter per point of its size


def write_figure(path: str | Path, draw: Callable[[], "Figure"], dpi: int = 160) -> None:
    """Draw a figure by Matplotlib's default style, not the user's, and save it.

    Args:
        path: of a PNG, PDF or SVG; its folder is made.
        draw: makes the figure.
        dpi: pixels per inch.

    Raises:
        ValueError: the file is to be of another kind.
    """
    path = Path(path)
    check_figure_path(path)
    import matplotlib.style

    with matplotlib.style.context("default"):
        figure = draw()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi)


def check_figure_path(path: Path) -> None:
    """Raise a ValueError if a figure cannot be written as a file of that name."""
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"A figure cannot be written as '{path.name}': use one of {', '.join(FIGURE_SUFFIXES)}."
        )


def wrap_text(text: str, width: float, size: float) -> str:
    """Break a text into lines that are at most about ``width`` inches long at ``size`` points."""
    return textwrap.fill(text, _letters(width, size), break_on_hyphens=False)


def keep_end(text: str, width: float, size: float) -> str:
    """The end of a text, as much of it as is at most about ``width`` inches long."""
    letters = _letters(width, size)
    return text if len(text) <= letters else f"\N{HORIZONTAL ELLIPSIS}{text[1 - letters :]}"


def text_width(text: str, size: float) -> float:
    """About how many inches a line of text takes at ``size`` points."""
    return len(text) * _LETTER * size


def _letters(width: float, size: float) -> int:
    return max(int(width / text_width("x", size)), 8)
