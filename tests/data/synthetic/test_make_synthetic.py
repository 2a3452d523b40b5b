"""The command line ``tools/make_synthetic.py``."""

import importlib.util
import json
from pathlib import Path

import pytest

from efpn_d2.data.synthetic import SyntheticConfig

pytestmark = pytest.mark.fast

TOOL = Path(__file__).resolve().parents[3] / "tools" / "make_synthetic.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("make_synthetic", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_writes_both_variants_and_says_where(main, tmp_path, capsys):
    options = "--train 2 --val 1 --size 64 --max-size 24 --seed 7 --workers 1 --format png"
    main(["--root", str(tmp_path), *options.split()])
    output = capsys.readouterr().out
    for variant, size in (("native1x", 64), ("native2x", 128)):
        for split, count in (("train", 2), ("val", 1)):
            folder = tmp_path / "synthetic_signs" / variant
            json_file = folder / "annotations" / f"{split}.json"
            content = json.loads(json_file.read_text())
            assert [image["width"] for image in content["images"]] == [size] * count
            assert content["info"]["options"]["seed"] == 7
            assert len(list((folder / split).glob("*.png"))) == count
            assert str(json_file) in output
            assert f"synthetic_signs_{variant}_{split}" in output


def test_help_says_which_input_size_belongs_to_the_images(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST" in " ".join(text.split())
    assert f"({SyntheticConfig().student_size})" in text


def test_one_variant_under_the_environment_root(main, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    options = "--variant native1x --train 1 --val 0 --size 64 --max-size 24 --workers 1"
    main(options.split())
    assert [path.name for path in (tmp_path / "synthetic_signs").iterdir()] == ["native1x"]


def test_bad_value_ends_in_one_sentence(main, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), "--size", "64"])
    assert "student_size >= 2 * max_size" in capsys.readouterr().err.splitlines()[-1]
