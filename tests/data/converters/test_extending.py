import json
import sys

import pytest

import prepare_dataset
from efpn_d2.data.converters import CONVERTERS, Converter, register_converter
from tests.data.trees import write_image
from tests.recipes import recipe

pytestmark = pytest.mark.fast


@pytest.fixture
def converters(monkeypatch, tmp_path):
    """The table of converters, which is as it was after the test, in a folder with the recipe."""
    before = dict(CONVERTERS)
    (tmp_path / "signs.py").write_text(recipe("A dataset converter"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield CONVERTERS
    sys.modules.pop("signs", None)
    CONVERTERS.clear()
    CONVERTERS.update(before)


def test_a_converter_from_outside(converters, tmp_path, capsys):
    for split, lines in (("train", "1 2 10 12\n30 20 8 8\n"), ("val", "60 40 10 10\n")):
        write_image(tmp_path / "source" / split / "a.png")
        (tmp_path / "source" / split / "a.txt").write_text(lines)
    places = ["--source", str(tmp_path / "source"), "--output", str(tmp_path / "out")]
    prepare_dataset.main(["--import", "signs", "signs", *places, "--quiet"])
    content = json.loads((tmp_path / "out" / "signs_train.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == [[1, 2, 10, 12], [30, 20, 8, 8]]
    description = json.loads((tmp_path / "out" / "signs_val.dataset.json").read_text())
    assert description["protocol"] == "aitod"
    assert "box_leaves_image: boxes that leave their image (1 clipped)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare_dataset.main(["coco", *places])
    assert "is laid out as signs, not coco" in capsys.readouterr().err
    with pytest.raises(ValueError, match="converter 'signs' already"):
        register_converter(Converter("signs", "", bool, lambda source, selection: ()))
