import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from efpn_d2.visualization.figures import keep_end, wrap_text, write_figure

pytestmark = pytest.mark.fast


def figure() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], label="line")
    return figure


def test_file_has_the_size_asked_for_and_its_folder_is_made(tmp_path):
    write_figure(tmp_path / "new" / "a.png", figure, dpi=50)
    assert Image.open(tmp_path / "new" / "a.png").size == (100, 50)


def test_the_readers_own_style_changes_nothing(tmp_path):
    write_figure(tmp_path / "a.png", figure)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        write_figure(tmp_path / "b.png", figure)
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["a.docx", "folder"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}': use one of .png, .pdf, .svg"):
        write_figure(tmp_path / name, figure)


def test_text_is_broken_between_words_and_cut_at_its_beginning():
    assert wrap_text("up-sampling of all maps", width=1.0, size=8) == "up-sampling of\nall maps"
    assert keep_end("short", width=1.0, size=8) == "short"
    assert keep_end("a name that is too long.png", 1.0, 8) == "…s too long.png"
