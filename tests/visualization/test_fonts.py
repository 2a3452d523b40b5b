import logging
from pathlib import Path

import numpy as np
import pytest
from detectron2.utils import logger as detectron2_logger
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from efpn_d2.visualization import fonts
from efpn_d2.visualization.draw import BLUE, GREEN, Mark, draw_marks, text_size

pytestmark = pytest.mark.fast

FOLDER = Path(get_data_path(), "fonts", "ttf")
# Two letters that DejaVu Sans lacks and this font of Matplotlib has.
OTHER_FONT, LETTERS = FOLDER / "STIXNonUni.ttf", "\ue000\ue001"
CHINESE = "\u4fe1\u53f7", "\u8b66\u544a"


@pytest.fixture
def installed(monkeypatch):
    """Sets which fonts the machine has."""

    def install(*paths):
        monkeypatch.setattr(fonts, "_installed_fonts", lambda: tuple(map(str, paths)))
        fonts._font_of.cache_clear()

    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", detectron2_logger.Counter())
    yield install
    fonts._font_of.cache_clear()


def written(text):
    picture = Image.new("L", (80, 20))
    fonts.draw_text(ImageDraw.Draw(picture), (2, 2), text, fill=255, size=11)
    return np.array(picture)


def test_letters_of_latin_need_no_font_of_the_machine(installed, caplog):
    installed()
    expected = Image.new("L", (80, 20))
    font = ImageFont.truetype(str(FOLDER / "DejaVuSans.ttf"), 11)
    ImageDraw.Draw(expected).text((2, 2), "stop \u00e9\u0436 9%", fill=255, font=font)
    assert (written("stop \u00e9\u0436 9%") == np.array(expected)).all()
    assert fonts.text_length("stop", 11) == font.getlength("stop")
    assert not caplog.records


def test_other_letters_come_from_an_installed_font(installed, caplog):
    installed(FOLDER / "no_such.ttf", FOLDER / "cmr10.ttf", OTHER_FONT)
    first, second = map(written, LETTERS)
    assert first.any() and second.any() and (first != second).any()
    font = ImageFont.truetype(str(OTHER_FONT), 11)
    own = fonts.load_font(11).getlength("a 9%")
    assert fonts.text_length(f"a{LETTERS[0]} 9%", 11) == pytest.approx(
        own + font.getlength(LETTERS[0]), abs=0.1
    )
    assert not caplog.records


def test_without_a_font_one_warning_says_what_to_do(installed, caplog):
    installed(FOLDER / "cmr10.ttf")
    for text in (*CHINESE, CHINESE[0]):
        assert written(text).any()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert CHINESE[0] in record.getMessage() and "install a font" in record.getMessage()


def test_a_font_of_pictures_is_passed_over(installed, tmp_path, monkeypatch):
    """Its letters have one size, and Pillow raises an error for any other."""
    installed(tmp_path / "emoji.ttf", OTHER_FONT)
    letters = fonts._letters

    def all_letters(path):
        return np.arange(0xE000, 0xE100) if path.endswith("emoji.ttf") else letters(path)

    monkeypatch.setattr(fonts, "_letters", all_letters)
    assert fonts._font_of(LETTERS[0], str(FOLDER / "DejaVuSans.ttf"), 11) == str(OTHER_FONT)


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "two\u2028lines", "tab\there"])
def test_line_breaks_do_not_reach_the_picture(text):
    image = np.zeros((60, 200, 3), dtype=np.uint8)
    box = (20, 40, 30, 50)
    plain = " ".join(text.split()) if "\r" not in text else "two  lines"
    drawn, expected = (draw_marks(image, [Mark(box, GREEN, t)]) for t in (text, plain))
    assert (drawn == expected).all()
    assert (drawn[:38] == GREEN).any()


def test_a_name_that_is_too_long_ends_in_an_ellipsis_before_its_score():
    name = "a very long name of a class"
    width = fonts.text_length(name, 11)
    assert fonts.fit_text(name, width, 11) == name
    short = fonts.fit_text(name, width - 1, 11)
    assert short.endswith("\u2026") and name.startswith(short[:-1])
    assert fonts.text_length(short, 11) <= width - 1
    scored = fonts.fit_text(f"{name} 95%", 100, 11)
    assert scored.startswith("a very") and scored.endswith("\u2026 95%")
    assert fonts.text_length(scored, 11) <= 100
    assert fonts.fit_text(name, 3, 11) == ""


@pytest.mark.parametrize("box", [(4, 30, 12, 38), (50, 30, 58, 38), (90, 30, 98, 38)])
def test_a_label_wider_than_the_picture_is_still_drawn(box):
    """Wherever its object lies: the picture is 100 px wide, and the name needs over 300."""
    image = np.zeros((80, 100, 3), dtype=np.uint8)
    name = "name " * 12 + "95%"
    assert text_size(name)[0] > 300
    bare, labelled = (draw_marks(image, [Mark(box, BLUE, t)]) for t in ("", name))
    changed = (bare != labelled).any(axis=2)
    assert changed.any(axis=0).sum() > 70  # columns
    assert not changed[box[1] : box[3], box[0] : box[2]].any()
