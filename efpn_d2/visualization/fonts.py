"""Draw single-line text on images in any script with an installed font, within a given width.

DejaVu Sans, from Matplotlib's files, covers Latin, Greek, Cyrillic, Arabic and Hebrew, and is the
same on every machine. Other scripts, like Chinese or Thai, use the fonts of the machine.
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
# This font has a glyph for every letter, which names the letter's script.
_NO_FONT = "lastresort"
_STYLES = ("bold", "black", "heavy", "italic", "oblique", "light", "thin", "condensed")


@lru_cache(maxsize=8)
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans from Matplotlib's files, which is the same on every machine."""
    return ImageFont.truetype(_dejavu(bold), size)


def one_line(text: str) -> str:
    """Remove line breaks and other control characters from a text."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def text_length(text: str, size: int, bold: bool = False) -> float:
    """Return the width of a single-line text in pixels."""
    return sum(font.getlength(part) for part, font in _parts(text, size, bold))


def fit_text(text: str, width: float, size: int, bold: bool = False) -> str:
    """Shorten a single-line text to a given width.

    Args:
        text: the text, cut at its end if it is too long; a score there, as in "stop 95%", is kept.
        width: maximum width in pixels.
        size: font size.
        bold: whether the font is bold.

    Returns:
        The text, or its beginning with an ellipsis; empty if not even that fits.
    """
    text = one_line(text)
    if text_length(text, size, bold) <= width:
        return text
    score = _SCORE.search(text)
    end = _ELLIPSIS + (score.group() if score else "")
    name = text[: score.start()] if score else text
    low, high = 0, len(name)  # the longest prefix that fits has between low and high letters
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
    """Draw a single-line text.

    Args:
        pen: drawing context of the image.
        place: position of the text's anchor.
        text: the text.
        fill: RGB.
        size: font size.
        bold: whether the font is bold.
        anchor: Pillow's name of an anchor on the left side.
    """
    x, y = place
    for part, font in _parts(text, size, bold):
        pen.text((x, y), part, fill=fill, font=font, anchor=anchor)
        x += font.getlength(part)


def _parts(text: str, size: int, bold: bool) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """Split a text into parts that one font can draw."""
    own = _dejavu(bold)
    parts: list[tuple[str, str]] = []  # text and path of its font
    for letter in text:
        # A combining character is drawn with the font of the preceding letter.
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
    """Return a font for a letter: ``own`` if it has it, otherwise an installed one, or None."""
    for path in (own, *_installed_fonts()):
        letters = _letters(path)
        place = int(np.searchsorted(letters, ord(letter)))
        if place < len(letters) and letters[place] == ord(letter) and _load_other(path, size):
            return path
    return None


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """Return the machine's fonts, regular ones first."""
    from matplotlib.font_manager import findSystemFonts  # imported lazily, as everywhere

    def rank(path: str) -> tuple[bool, str, str]:
        """Sort by style, then by name, so that the order is reproducible."""
        name = Path(path).name.lower()
        return any(style in name for style in _STYLES), name, path

    return tuple(sorted((p for p in findSystemFonts() if _NO_FONT not in p.lower()), key=rank))


@cache
def _letters(path: str) -> np.ndarray:
    """Return the sorted code points of a font; empty if the file is not a font."""
    from matplotlib.ft2font import FT2Font

    try:
        return np.unique(np.fromiter(FT2Font(path).get_charmap(), dtype=np.int64))
    except (OSError, RuntimeError, ValueError):
        return np.zeros(0, dtype=np.int64)


@lru_cache(maxsize=64)
def _load_other(path: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Load a font file; None if it has no glyphs of that size, as for bitmap fonts."""
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
        f"No installed font has all letters of '{text}': missing ones are drawn as squares; "
        "install a font for that script, such as one of the Noto fonts.",
        name=__name__,
    )
