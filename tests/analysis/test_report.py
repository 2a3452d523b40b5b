import numpy as np
import pytest
import yaml
from PIL import Image

from efpn_d2.analysis import analyze_dataset, format_analysis, format_settings
from efpn_d2.analysis.figure import level_bands, write_analysis_figure
from efpn_d2.analysis.report import octave_edges
from tests.analysis.helpers import analysis_config, make_record, square_records

pytestmark = pytest.mark.fast

RETINANET = "COCO-Detection/retinanet_R_50_EFPN_1x.yaml"
SIZES = ["MODEL.ANCHOR_GENERATOR.SIZES", "[[16],[32],[64],[128],[256]]"]


@pytest.fixture(scope="module")
def analysis():
    """Objects of exactly 16 px on anchors of 16 px, half of them, and of 100 px."""
    on_grid = [make_record([[8 + 4 * i, 8, 16, 16]], height=256, width=256) for i in range(6)]
    large = square_records([100.0] * 6)
    return analyze_dataset([*on_grid, *large], analysis_config(*SIZES), "signs.json")


def row(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_the_tables_have_the_numbers(analysis):
    text = format_analysis(analysis)
    assert "signs.json: 12 images, 12 objects" in text
    # SMALL_BOX_SIZE 112: all of P2's objects go to P'2.
    assert row(text, "p2_prime")[1:3] == ["12", "100.0%"]
    # 16 px: each is an anchor of P2.
    assert row(text, "16 to 32 px")[4:6] == ["6", "100.0%"]
    assert row(text, "16 to 32 px")[8] == "100.0%"
    assert row(text, "all")[1] == "12"
    assert "MODEL.EFPN.SMALL_BOX_SIZE 56 (now 112)" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "opts"),
    [
        ("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml", []),
        (
            "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml",
            ["MODEL.EFPN.RPN_ON_P2_PRIME", "True", "MODEL.RPN.POST_NMS_TOPK_TEST", "100"],
        ),
        ("COCO-Detection/cascade_rcnn_R_50_EFPN_3x.yaml", []),
        ("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml", ["MODEL.EFPN.ROUTING", "none"]),
        (RETINANET, []),
    ],
)
def test_the_settings_merge_onto_the_config(tmp_path, name, opts):
    """And give it the detector that the report advises."""
    cfg = analysis_config(*opts, name=name)
    analysis = analyze_dataset(square_records([12.0, 24.0, 50.0, 90.0] * 5), cfg, "signs.json")
    path = tmp_path / "recommended.yaml"
    path.write_text(format_settings(analysis))
    merged = cfg.clone()
    merged.merge_from_file(str(path))
    changed = yaml.safe_load(path.read_text())
    assert changed.pop("VERSION") == 2 and changed == analysis.settings
    again = analyze_dataset(square_records([12.0, 24.0, 50.0, 90.0] * 5), merged, "signs.json")
    for level, advised in zip(
        again.geometry.anchors, analysis.advised_geometry.anchors, strict=True
    ):
        np.testing.assert_allclose(level.boxes, advised.boxes)
    np.testing.assert_array_equal(again.overlaps.best, analysis.advised_overlaps.best)
    assert again.geometry.small_box_size == analysis.advised_geometry.small_box_size


def test_a_dense_detector_has_no_levels_to_read_from():
    analysis = analyze_dataset(square_records([20.0] * 5), analysis_config(name=RETINANET))
    text = format_analysis(analysis)
    assert "Levels that the heads read" not in text and "SMALL_BOX_SIZE" not in text
    assert level_bands(analysis.geometry, analysis.objects.boxes) == []


def test_bands_of_levels(analysis):
    bands = level_bands(analysis.geometry, analysis.objects.boxes)
    assert [band.name for band in bands] == ["P'2", "P3", "P4", "P5"]
    assert [band.low for band in bands] == pytest.approx([1, 112, 224, 448], rel=0.01)
    assert [band.high for band in bands][:3] == [band.low for band in bands][1:]
    assert [band.share for band in bands] == [1, 0, 0, 0]


def test_octaves():
    assert octave_edges(np.array([5.0, 40.0])) == [4, 8, 16, 32, 64]
    assert octave_edges(np.array([8.0, 16.0])) == [8, 16, 32]
    assert octave_edges(np.array([0.2, 1.0])) == [1, 2]


def test_the_figure_shows_levels_and_both_choices_of_anchors(analysis, tmp_path):
    write_analysis_figure(tmp_path / "a.png", analysis)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3).tolist()
    colours = set(map(tuple, pixels))
    assert {(31, 119, 180), (255, 127, 14), (251, 227, 200), (74, 106, 138)} <= colours
