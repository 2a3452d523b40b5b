import numpy as np
import pytest
import yaml

from efpn_d2.analysis import analyze_dataset, format_analysis, format_settings
from efpn_d2.analysis.detector import describe_detector
from efpn_d2.analysis.objects import read_objects
from efpn_d2.analysis.similarity import nwd_constant, simd_constants
from efpn_d2.modeling.box_similarity import similarity_settings
from tests.analysis.helpers import analysis_config, make_record, square_records

pytestmark = pytest.mark.fast


def test_constants_are_those_of_a_loop_over_pairs():
    cfg = analysis_config("MODEL.ANCHOR_GENERATOR.SIZES", "[[16],[32],[64],[128],[256]]")
    records = [
        make_record([[8, 9, 10, 20], [-5, 60, 30, 7]]),
        make_record([]),
        make_record([[90, 3, 25, 9]]),
    ]
    objects, geometry = read_objects(records, 0, 0), describe_detector(cfg)
    ratios = []
    for x1, y1, x2, y2 in objects.boxes:
        for level in geometry.anchors:
            for row in range(int(np.ceil(128 / level.stride))):
                for column in range(int(np.ceil(128 / level.stride))):
                    for a in level.boxes:
                        x = (a[0] + a[2]) / 2 + column * level.stride - (x1 + x2) / 2
                        y = (a[1] + a[3]) / 2 + row * level.stride - (y1 + y2) / 2
                        widths, heights = a[2] - a[0] + x2 - x1, a[3] - a[1] + y2 - y1
                        ratios.append((abs(x) / widths, abs(y) / heights))
    assert simd_constants(objects, geometry) == pytest.approx(np.mean(ratios, axis=0))
    assert nwd_constant(objects) == pytest.approx(np.mean(np.sqrt([200, 25 * 7, 25 * 9])))


def test_report_and_settings_have_them_to_paste():
    cfg = analysis_config()
    analysis = analyze_dataset(square_records([12.0, 24.0, 50.0] * 4), cfg, "signs.json")
    report, settings = format_analysis(analysis), format_settings(analysis)
    assert yaml.safe_load(settings)["MODEL"] == analysis.settings["MODEL"]
    _, advised = analysis.similarity_constants()
    assert advised.nwd == [pytest.approx(28.667, abs=1e-3)]
    for name, constants in advised._asdict().items():
        assert f"SIMILARITY {name}: MODEL.EFPN.SIMILARITY_CONSTANTS {constants}" in settings
        assert str(constants) in " ".join(report.split())
        own = analysis_config("MODEL.EFPN.SIMILARITY", name)
        own.merge_from_list(["MODEL.EFPN.SIMILARITY_CONSTANTS", str(constants)])
        assert similarity_settings(own, "rpn").constants == tuple(constants)


def test_a_config_without_the_constants_yet_can_be_analysed():
    assert describe_detector(analysis_config("MODEL.EFPN.SIMILARITY", "simd")).thresholds == (
        0.3,
        0.7,
    )
