"""Text on pictures: in any script that a font is installed for, on one line, as wide as there is.

DejaVu Sans, from Matplotlib's own files, has the letters of Latin, Greek, Cyrillic, Arabic and
Hebrew, alike on every machine. Others, as of Chinese or Thai, come from the fonts of the machine.
"""

import logging
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_SCORE = re.compile(r" \d+%$")
# It has a sign for every letter, which names the letter's script.
_NO_FONT = "lastresort"
_STYLES = ("bold", "black", "heavy", "italic", "oblique", "light", "thin", "condensed")


@lru_cache(maxsize=8)
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from Matplotlib's own files: the same letters on every machine."""
    return ImageFont.truetype(_dejavu(bold), size)


def one_line(text: str) -> str:
    """A text without line breaks and other characters that control a terminal."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def text_length(text: str, size: int, bold: bool = False) -> float:
    """Pixels that a text of one line is wide."""
    return sum(font.getlength(part) for part, font in _parts(text, size, bold))


def fit_text(text: str, width: float, size: int, bold: bool = False) -> str:
    """A text of one line that is not wider than there is place.

    Args:
        text: what is cut at its end if it is too long; a score there, as in "stop 95%", stays.
        width: pixels that there are.
        size, bold: of the font.

    Returns:
        The text, or its beginning with an ellipsis; empty if not even that fits.
    """
    text = one_line(text)
    if text_length(text, size, bold) <= width:
        return text
    score = _SCORE.search(text)
    end = _ELLIPSIS + (score.group() if score else "")
    name = text[: score.start()] if score else text
    low, high = 0, len(name)  # the longest beginning that fits has from low to high letters
    while low < high:
        middle = (low + high + 1) // 2
        if text_length(name[:middle].rstrip() + end, size, bold) <= width:
            low = middle
        else:
            high = middle - 1
    return name[:low].rstrip() + end if low else ""


def draw_text(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    fill: tuple[int, int, int],
    size: int,
    bold: bool = False,
    anchor: str = "la",
) -> None:
    """Write a text of one line.

    Args:
        pen: of the picture.
        place: where the text's anchor is.
        text: what to write.
        fill: RGB.
        size, bold: of the font.
        anchor: Pillow's name of it, at the left side.
    """
    x, y = place
    for part, font in _parts(text, size, bold):
        pen.text((x, y), part, fill=fill, font=font, anchor=anchor)
        x += font.getlength(part)


def _parts(text: str, size: int, bold: bool) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """A text in parts that one font has all letters of."""
    own = _dejavu(bold)
    parts: list[tuple[str, str]] = []  # text and path of its font
    for letter in text:
        # What changes the letter before it is written by the same font.
        joins = unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")
        path = parts[-1][1] if parts and joins else _font_of(letter, own, size)
        if path is None:
            _warn_of(text)
            path = own
        if parts and parts[-1][1] == path:
            letter = parts.pop()[0] + letter
        parts.append((letter, path))
    default = load_font(size, bold)
    return [
        (part, default if path == own else _load_other(path, size) or default)
        for part, path in parts
    ]


@lru_cache(maxsize=4096)
def _font_of(letter: str, own: str, size: int) -> str | None:
    """The font to write a letter by: ``own`` if it has it, else one that is installed, or None."""
    for path in (own, *_installed_fonts()):
        letters = _letters(path)
        place = int(np.searchsorted(letters, ord(letter)))
        if place < len(letters) and letters[place] == ord(letter) and _load_other(path, size):
            return path
    return None


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """The machine's fonts, plain ones first."""
    from matplotlib.font_manager import findSystemFonts  # only here, as all of Matplotlib

    def rank(path: str) -> tuple[bool, str, str]:
        """By style, then by name, so that the same fonts are always in the same order."""
        name = Path(path).name.lower()
        return any(style in name for style in _STYLES), name, path

    return tuple(sorted((p for p in findSystemFonts() if _NO_FONT not in p.lower()), key=rank))


@cache
def _letters(path: str) -> np.ndarray:
    """The code points that a font has letters of, ascending; none of a file that is no font."""
    from matplotlib.ft2font import FT2Font

    try:
        return np.unique(np.fromiter(FT2Font(path).get_charmap(), dtype=np.int64))
    except (OSError, RuntimeError, ValueError):
        return np.zeros(0, dtype=np.int64)


@lru_cache(maxsize=64)
def _load_other(path: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font by its file; None if it has no letters of that size, as fonts of pictures have not."""
    try:
        return ImageFont.truetype(path, size)
    except OSError:
        return None


@lru_cache(maxsize=2)
def _dejavu(bold: bool) -> str:
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(get_data_path(), "fonts", "ttf", name))


def _warn_of(text: str) -> None:
    from detectron2.utils.logger import log_first_n

    log_first_n(
        logging.WARNING,
        f"No installed font has all letters of '{text}': what is missing is drawn as squares; "
        "install a font of that script, such as one of the Noto fonts.",
        name=__name__,
    )
