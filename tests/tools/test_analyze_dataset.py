import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import analyze_dataset
from analyze_dataset import main
from tests.dataset_advice.helpers import analysis_config

pytestmark = pytest.mark.fast


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 160} for i in range(4)]
    annotations = [
        {"id": i + 1, "image_id": i % 4, "category_id": 7, "bbox": [9 * i, 8 * i, 6 + i, 9 + i]}
        | {"area": (6 + i) * (9 + i), "iscrowd": int(i == 0)}
        for i in range(14)
    ]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 7, "name": "sign"}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    (tmp_path / "list.json").write_text("[1, 2]")
    annotations[3]["bbox"][2] = float("nan")
    (tmp_path / "nan.json").write_text(json.dumps(content))
    images[0].pop("height")
    (tmp_path / "no_size.json").write_text(json.dumps(content))
    content["annotations"] = [None]
    (tmp_path / "null.json").write_text(json.dumps({**content, "images": []}))
    return tmp_path


def test_report_figure_and_settings(workplace, capsys):
    main(
        [
            "--dataset",
            "train.json",
            "--output",
            "new/analysis",
            "--opts",
            "INPUT.MIN_SIZE_TEST",
            "320",
        ]
    )
    printed = capsys.readouterr().out
    assert "train.json: 4 images, 13 objects (left out: 1 marked as crowd)" in printed
    assert "scaled by 2 (median)" in printed
    written = printed.split()[-3:]
    assert written == [
        f"new/analysis/{x}" for x in ("report.txt", "analysis.png", "recommended.yaml")
    ]
    assert (workplace / written[0]).read_text().strip() in printed
    assert (workplace / written[1]).stat().st_size > 10000
    cfg = analysis_config(name="Base-RCNN-EFPN.yaml")
    cfg.merge_from_file(written[2])
    assert 12 < cfg.MODEL.EFPN.SMALL_BOX_SIZE < 56


def test_registered_by_the_config(workplace):
    lines = 'COCO_DATA: {REGISTER: [["analysed_signs", "train.json", "."]]}\nVERSION: 2\n'
    (workplace / "mine.yaml").write_text(lines)
    main(
        [
            "--dataset",
            "analysed_signs",
            "--config-file",
            "mine.yaml",
            "--output",
            "out",
            "--opts",
            *RPN,
        ]
    )
    assert (workplace / "out" / "report.txt").read_text().startswith("analysed_signs: 4 images")


RPN = [
    *("MODEL.BACKBONE.NAME", "build_resnet_efpn_backbone", "MODEL.ROI_HEADS.NAME", "EFPNROIHeads"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res2','res3','res4','res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res2','res3','res4','res5']"),
    *("MODEL.RPN.IN_FEATURES", "['p2','p3','p4','p5','p6']"),
    *("MODEL.ROI_HEADS.IN_FEATURES", "['p2','p3','p4','p5']"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "none.json"], "'none.json' is neither a COCO JSON nor the name of"),
        (["--dataset", "list.json"], "list.json is not a COCO JSON"),
        (["--dataset", "nan.json"], "annotations[3] of nan.json has the bbox [27, 24, nan, 12]"),
        (["--dataset", "null.json"], "annotations[0] of null.json is None, but must be an object"),
        (["--dataset", "no_size.json"], "images[0] of no_size.json has no height"),
        (["--dataset", "train.json", "--config-file", "none.yaml"], "no config 'none.yaml'"),
        (["--dataset", "train.json", "--opts", "NO.KEY", "1"], "Cannot apply the options"),
        (
            ["--dataset", "train.json", "--opts", "MODEL.EFPN.PRESET", "best"],
            "MODEL.EFPN.PRESET is 'best', which does not exist",
        ),
        (
            ["--dataset", "train.json", "--opts", "MODEL.RPN.IN_FEATURES", "['p1']"],
            "MODEL.RPN.IN_FEATURES",
        ),
        (["--dataset", "train.json", "--output", "train.json"], "train.json"),
    ],
)
def test_mistakes_end_in_one_sentence(workplace, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    text = str(exit_info.value)
    assert text.startswith("error: ") and message in text and "\n" not in text


def test_a_notebooks_backend_for_figures_is_not_needed(workplace):
    """Notebooks leave it in the environment of the commands that they start."""
    env = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [sys.executable, analyze_dataset.__file__, "--dataset", "train.json"]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert Path("output/analysis/analysis.png").stat().st_size > 10000
