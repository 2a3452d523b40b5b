import json

import pytest
import torch
from PIL import Image

from tests.demo.conftest import load_script

run_demo = load_script("run_demo")


@pytest.fixture
def run(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "")  # the demo sets it; undone after the test

    def main(*args):
        images = ["--train-images", "4", "--val-images", "2"]
        output = ["--output", str(tmp_path / "demo")]
        size = ["INPUT.MIN_SIZE_TEST", "128"]  # room for signs of up to 64 px
        return run_demo.main(["--config-file", config_file, *output, *images, *args, *size])

    return main


def test_whole_way_and_back_again(run, tmp_path, capsys):
    record = run()
    folder = tmp_path / "demo"
    assert json.loads((folder / "results.json").read_text())["seed"] == 1
    assert {"generate", "train", "evaluate", "draw"} == record["seconds"].keys()
    assert {"AP_0_16", "AP_16_inf", "AP50"} <= record["metrics"].keys()
    assert Image.open(folder / "sheet.png").width == 1200
    printed = capsys.readouterr().out
    assert str(folder / "sheet.png") in printed and "AP50" in printed
    weights = torch.load(folder / "model_final.pth", weights_only=False)["model"]
    changed = (folder / "model_final.pth").stat().st_mtime_ns

    again = run()
    assert again["metrics"].keys() == record["metrics"].keys()
    assert again["seconds"]["train"] == record["seconds"]["train"]  # not trained a second time
    assert (folder / "model_final.pth").stat().st_mtime_ns == changed

    with pytest.raises(SystemExit):
        run("SOLVER.BASE_LR", "0.5")
    assert "holds a demo with another config; add --fresh" in capsys.readouterr().err

    run("--fresh")  # from the seed, so it ends with the very same weights
    assert (folder / "model_final.pth").stat().st_mtime_ns != changed
    fresh = torch.load(folder / "model_final.pth", weights_only=False)["model"]
    assert all(torch.equal(weights[key], fresh[key]) for key in weights)


def test_fresh_does_not_delete_what_is_no_demo(run, tmp_path, capsys):
    precious = tmp_path / "demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(SystemExit):
        run("--fresh")
    assert precious.exists()
    assert "does not look like a demo's folder" in capsys.readouterr().err
