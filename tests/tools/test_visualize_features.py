import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inspection.tiny_pyramid import write_image, write_pyramid
from visualize_features import main

pytestmark = pytest.mark.fast


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Two models, two images with annotations, and the logs of two stages, all by short names."""
    monkeypatch.chdir(tmp_path)
    _, ftt = write_pyramid(tmp_path, "ftt")
    _, espcn = write_pyramid(tmp_path, "espcn", **{"MODEL.EFPN.UPSAMPLER": "espcn"})
    espcn |= {key: value for key, value in ftt.items() if ".extension." not in key}
    torch.save({"model": espcn}, "espcn.pth")  # from the same base
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "sign"}]}
    for i, (width, height) in enumerate(((61, 45), (40, 50))):
        write_image(tmp_path / f"{i}.png", width, height, seed=i)
        content["images"].append(
            {"id": i, "file_name": f"{i}.png", "width": width, "height": height}
        )
    content["annotations"].append({"id": 1, "image_id": 0, "category_id": 1,
                                   "bbox": [4, 4, 12, 16], "iscrowd": 0})  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(content))
    for name in ("run_a", "run_b"):
        (tmp_path / name).mkdir()
        entries = [{"iteration": i, "loss_distill_p2_global": 1 / i} for i in (19, 39)]
        (tmp_path / name / "metrics.json").write_text("\n".join(map(json.dumps, entries)))
    return tmp_path


MODELS = ["--model", "ESPCN=espcn.yaml:espcn.pth", "--model", "FTT=ftt.yaml:ftt.pth"]


def test_maps_of_two_models_and_images(workplace, capsys):
    common = ["maps", "--input", "0.png", "1.png", *MODELS, "--annotations", "gt.json"]
    main([*common, "--output", "maps.png"])
    main([*common, "--output", "cut", "--crop", "2,2,30,30", "--differences"])
    assert capsys.readouterr().out.split() == ["maps.png", "cut/0.png", "cut/1.png"]
    pictures = [np.asarray(Image.open(name)) for name in ("maps.png", "cut/0.png", "cut/1.png")]
    assert all(picture.std() > 20 for picture in pictures)


def test_level_reduction_teacher_and_options_are_passed_on(workplace):
    common = ["maps", "--input", "0.png", *MODELS[2:]]
    pictures = set()
    for i, more in enumerate(
        (
            [],
            ["--level", "p3_prime"],
            ["--reduction", "norm"],
            ["--annotations", "gt.json"],
            ["--opts", "DISTILL.VIEW", "upsample"],
        )
    ):
        main([*common, "--output", f"{i}_out.png", *more])
        pictures.add((workplace / f"{i}_out.png").read_bytes())
    write_pyramid(workplace, "teacher", seed=1)
    main([*common, "--output", "teacher.png", "--teacher", "teacher.pth"])
    pictures.add((workplace / "teacher.png").read_bytes())
    assert len(pictures) == 6


def test_curve_of_two_runs(workplace, capsys):
    main(["curve", "--run", "A=run_a", "--run", "B=run_b", "--output", "new/curve.png"])
    assert capsys.readouterr().out.split() == ["new/curve.png"]
    assert np.asarray(Image.open("new/curve.png")).std() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "ftt.yaml:ftt.pth"], "does not name a model: write LABEL=CONFIG:WEIGHTS"),
        (["--model", "A=ftt.yaml:none.pth"], "weights file 'none.pth'"),
        (["--model", "A=none.yaml:ftt.pth"], "none.yaml"),
        (["--model", "A=ftt.yaml:stock.pth"], "weights of the extended level"),
        ([*MODELS, "--input", "gt.json"], "'gt.json' cannot be read as an image"),
        ([*MODELS, "--input", "none.png"], "'none.png' cannot be read as an image"),
        ([*MODELS, "--annotations", "none.json"], "'none.json' is neither a COCO JSON nor"),
        ([*MODELS, "--input", "x.png", "--annotations", "gt.json"], "no entries for the image"),
        ([*MODELS, "--crop", "1,2,3"], "--crop is '1,2,3': write four numbers"),
        ([*MODELS, "--crop", "0,0,99,9"], "is not within the image '0.png' of 61 x 45 pixels"),
        ([*MODELS, "--opts", "NO.KEY", "1"], "Cannot apply the options"),
    ],
)
def test_mistakes_end_in_one_sentence(workplace, arguments, message):
    weights = torch.load("ftt.pth")["model"]
    stock = {k: v for k, v in weights.items() if "extension" not in k}
    torch.save({"model": stock}, "stock.pth")
    with pytest.raises(SystemExit) as exit_info:
        main(["maps", "--input", "0.png", "--output", "out.png", *arguments])
    text = str(exit_info.value)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert not (workplace / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "run_a"], "'run_a' does not name a run: write LABEL=FOLDER"),
        (["--run", "A=none"], "There is no metrics.json in 'none'"),
        (["--run", "A=run_a", "--run", "A=run_b"], "Two runs have the same label"),
        (["--run", "A=run_a", "--smoothing", "2"], "odd number"),
    ],
)
def test_mistakes_about_runs_end_in_one_sentence(workplace, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["curve", "--output", "out.png", *arguments])
    assert str(exit_info.value).startswith("error: ") and message in str(exit_info.value)


@pytest.fixture
def gated(workplace):
    """Adds a model with FBSM and without P'2."""
    write_pyramid(
        workplace,
        "fbsm",
        **{
            "MODEL.BACKBONE.NAME": "build_resnet_enhanced_fpn_backbone",
            "MODEL.EFPN.ROUTING": "none",
            "MODEL.EFPN_BS.FBSM_ENABLED": True,
        },
    )
    return workplace


MASKS = ["--input", "0.png", "--annotations", "gt.json"]


def test_masks_as_a_command_and_as_a_flag_are_the_same(gated, capsys, monkeypatch):
    arguments = [*MASKS, "--model", "fbsm.yaml:fbsm.pth", "--output"]
    main(["masks", *arguments, "command.png"])
    main(["--masks", *arguments, "flag.png"])
    monkeypatch.setattr("sys.argv", ["visualize_features.py", "--masks", *arguments, "typed.png"])
    main()
    assert capsys.readouterr().out.split() == ["command.png", "flag.png", "typed.png"]
    pictures = [(gated / f"{name}.png").read_bytes() for name in ("command", "flag", "typed")]
    assert pictures[0] == pictures[1] == pictures[2]
    assert np.asarray(Image.open("command.png")).std() > 20


def test_label_crop_boxes_and_options_of_masks_are_passed_on(gated):
    pictures = set()
    for i, (model, more) in enumerate(
        (
            ("fbsm.yaml:fbsm.pth", []),
            ("A=fbsm.yaml:fbsm.pth", []),
            ("fbsm.yaml:fbsm.pth", ["--crop", "2,2,30,30"]),
            ("fbsm.yaml:fbsm.pth", ["--annotations", "gt.json"]),
            ("fbsm.yaml:fbsm.pth", ["--opts", "INPUT.MIN_SIZE_TEST", "90"]),
        )
    ):
        main(["masks", "--input", "0.png", "--model", model, "--output", f"{i}_out.png", *more])
        pictures.add((gated / f"{i}_out.png").read_bytes())
    assert len(pictures) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fbsm.yaml"], "write CONFIG:WEIGHTS or LABEL=CONFIG:WEIGHTS"),
        (["--model", "ftt.yaml:ftt.pth"], "'ftt.yaml' builds a pyramid without FBSM"),
        (["--model", "fbsm.yaml:ftt.pth"], "'ftt.pth' lacks matching weights of FBSM"),
        (["--model", "fbsm.yaml:none.pth"], "weights file 'none.pth'"),
        (["--model", "fbsm.yaml:gt.json"], "'gt.json' cannot be read as a checkpoint"),
        (["--model", "fbsm.yaml:fbsm.pth"] * 2, "--model is given 2 times"),
        (["--model", "fbsm.yaml:fbsm.pth", "--input", "gt.json"], "cannot be read as an image"),
        (["--model", "fbsm.yaml:fbsm.pth", "--crop", "0,0,99,9"], "is not within the image"),
        (["--model", "fbsm.yaml:fbsm.pth", "--opts", "NO.KEY", "1"], "Cannot apply the options"),
    ],
)
def test_mistakes_about_masks_end_in_one_sentence(gated, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["--masks", "--input", "0.png", "--output", "out.png", *arguments])
    text = str(exit_info.value)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert not (gated / "out.png").exists()
