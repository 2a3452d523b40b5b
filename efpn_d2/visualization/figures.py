"""Write Matplotlib figures that look the same on every machine."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported lazily
    from matplotlib.figure import Figure


FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

_LETTER = 0.0082  # average width of a letter in inches per point of font size


def write_figure(path: str | Path, draw: Callable[[], "Figure"], dpi: int = 160) -> None:
    """Draw a figure in Matplotlib's default style, not the user's, and save it.

    Args:
        path: path of a PNG, PDF or SVG file; its folder is created.
        draw: makes the figure.
        dpi: pixels per inch.

    Raises:
        ValueError: if the file type is not supported.
    """
    path = Path(path)
    check_figure_path(path)
    import matplotlib.style

    with matplotlib.style.context("default"):
        figure = draw()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi)


def check_figure_path(path: Path) -> None:
    """Check that a figure can be written to a file of this name.

    Raises:
        ValueError: if the file type is not supported.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"A figure cannot be written as '{path.name}': use one of {', '.join(FIGURE_SUFFIXES)}."
        )


def wrap_text(text: str, width: float, size: float) -> str:
    """Wrap a text to lines of at most about ``width`` inches at ``size`` points."""
    return textwrap.fill(text, _letters(width, size), break_on_hyphens=False)


def keep_end(text: str, width: float, size: float) -> str:
    """Return the end of a text that fits in about ``width`` inches at ``size`` points."""
    letters = _letters(width, size)
    return text if len(text) <= letters else f"\N{HORIZONTAL ELLIPSIS}{text[1 - letters :]}"


def text_width(text: str, size: float) -> float:
    """Estimate the width of a line of text in inches at ``size`` points."""
    return len(text) * _LETTER * size


def _letters(width: float, size: float) -> int:
    return max(int(width / text_width("x", size)), 8)
