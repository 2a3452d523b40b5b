import numpy as np
import pytest

from efpn_d2.analysis import analyze_dataset
from efpn_d2.analysis.advice import advise_detections, advise_small_box_size, sure_size
from efpn_d2.analysis.anchors import AnchorLevel, best_overlaps
from efpn_d2.analysis.report import format_analysis
from tests.analysis.helpers import analysis_config, make_record, square_records

pytestmark = pytest.mark.fast

SIZES = ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64],[128],[256],[512]]"]


def anchor_sizes(analysis):
    return [size for (size,) in analysis.settings["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]]


def test_anchor_sizes_follow_the_objects():
    """Two sizes of objects: levels take both, as near as IoU 0.7 of squares needs, 0.26 octaves."""
    sizes = [18.0] * 60 + [41.0] * 40
    analysis = analyze_dataset(square_records(sizes), analysis_config(*SIZES))
    found = anchor_sizes(analysis)
    assert len(found) == 5 and all(np.diff(found) > 0)
    for size in (18, 41):
        assert min(abs(np.log2(x / size)) for x in found) <= 0.26
    before, after = (x.best for x in (analysis.overlaps, analysis.advised_overlaps))
    assert (after >= 0.7).mean() > 0.9 > 0.1 > (before >= 0.7).mean()
    expected = [
        level.boxes[0, 2] - level.boxes[0, 0] for level in analysis.advised_geometry.anchors
    ]
    assert found == expected


@pytest.mark.parametrize("seed", range(3))
def test_advised_anchors_are_never_worse(seed):
    """By what the search makes the most of, from objects of sizes that are drawn."""
    rng = np.random.default_rng(seed)
    records = square_records((2 ** rng.uniform(2, 7, 150)).tolist(), seed=seed)
    analysis = analyze_dataset(records, analysis_config(*SIZES))
    low, high = analysis.geometry.thresholds
    octaves = np.floor(np.log2(analysis.objects.sizes))

    def score(best):
        parts = [best[octaves == octave] for octave in np.unique(octaves)]
        of_octave = [(part >= low).mean() + np.minimum(part, high).mean() for part in parts]
        return np.average(of_octave, weights=[len(part) ** 0.5 for part in parts])

    assert score(analysis.advised_overlaps.best) >= score(analysis.overlaps.best) - 1e-9


def test_few_objects_are_not_given_up_for_many():
    """One in fifty is of 9 px; anchors of P2 reach those only where P2's size stays small."""
    records = square_records([9.0] * 8 + [30.0, 35.0, 42.0, 50.0, 60.0] * 80)
    analysis = analyze_dataset(records, analysis_config(*SIZES))
    few = analysis.objects.sizes < 16
    assert (analysis.advised_overlaps.best[few] >= 0.3).all()
    assert anchor_sizes(analysis)[0] < 15


def test_sizes_for_p2_prime_have_a_key_of_their_own():
    cfg = analysis_config(*SIZES, "MODEL.EFPN.RPN_ON_P2_PRIME", "True")
    analysis = analyze_dataset(square_records([9.0] * 50 + [30.0] * 50), cfg)
    assert analysis.settings["MODEL"]["EFPN"]["P2_PRIME_ANCHOR_SIZES"] == [
        pytest.approx(9, rel=0.19)
    ]
    assert len(anchor_sizes(analysis)) == 5


def test_several_sizes_per_level_divide_the_octave():
    cfg = analysis_config("MODEL.ANCHOR_GENERATOR.SIZES", "[[16, 23],[32, 45],[64, 91]]")
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4"]
    analysis = analyze_dataset(square_records([20.0, 30.0, 50.0] * 20), cfg)
    for first, second in analysis.settings["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]:
        assert second / first == pytest.approx(2**0.5, rel=0.03)


def test_small_box_size():
    """56 px where both heads have their share, else the fifth that comes nearest."""
    assert advise_small_box_size(np.linspace(1, 200, 1000)) == 56
    assert advise_small_box_size(np.linspace(0, 40, 1001)) == 32
    assert advise_small_box_size(np.linspace(100, 200, 1001)) == 120


def test_detections_per_image():
    assert advise_detections(np.array([0, 3, 40])) == 100
    assert advise_detections(np.array([1] * 999 + [310])) == 350
    assert advise_detections(np.array([120] * 100)) == 250


def test_more_detections_get_more_proposals():
    records = [make_record([[i % 100, i // 100 * 8, 7, 7] for i in range(700)], height=256)]
    cfg = analysis_config("MODEL.RPN.POST_NMS_TOPK_TEST", "1000")
    analysis = analyze_dataset(records, cfg)
    assert analysis.settings["TEST"]["DETECTIONS_PER_IMAGE"] == 1400
    assert analysis.settings["MODEL"]["RPN"]["POST_NMS_TOPK_TEST"] == 2800


@pytest.mark.parametrize(("stride", "threshold"), [(2, 0.7), (4, 0.7), (8, 0.5)])
def test_sure_size_is_enough_everywhere_and_no_more(stride, threshold):
    size = sure_size(stride, threshold)
    offsets = np.linspace(0, stride, 33)
    for factor, enough in ((1.001, True), (0.999, False)):
        side = size * factor
        x, y = (64 + grid.ravel() for grid in np.meshgrid(offsets, offsets))
        boxes = np.stack([x, y, x + side, y + side], axis=1)
        level = AnchorLevel("", stride, np.array([[0, 0, side, side]]))
        ious = best_overlaps(boxes, np.full((len(boxes), 2), 99), level)
        assert (ious.min() >= threshold) == enough


def test_input_scale():
    """Nine of ten objects at the size that P2's anchors can be sure of, 21.6 px; files of 256."""
    cfg = analysis_config("INPUT.MIN_SIZE_TEST", "256")
    enough = analyze_dataset(square_records([30.0] * 50), cfg).scale
    assert (enough.factor, enough.min_size, enough.capped) == (1.0, 256, False)
    more = analyze_dataset(square_records([15.0] * 50), cfg).scale
    assert more.factor == pytest.approx(21.618 / 15, rel=1e-3)
    assert more.min_size == 376 and more.max_size == 1928
    limited = analyze_dataset(square_records([5.0] * 50), cfg).scale
    assert (limited.factor, limited.min_size, limited.capped) == (2.0, 512, True)
    cfg.INPUT.MIN_SIZE_TEST = 512
    assert analyze_dataset(square_records([5.0] * 50), cfg).scale.factor == 1.0


@pytest.mark.parametrize(
    "opts",
    [
        # More octaves in a level than the search would put there.
        ["MODEL.RPN.IN_FEATURES", "['p2']", SIZES[0], "[[8, 32, 128]]"],
        # Sizes that no object needs are no reason to change.
        [SIZES[0], "[[8],[32],[128],[256],[512]]"],
        [
            *("MODEL.EFPN.RPN_ON_P2_PRIME", "True", "MODEL.EFPN.P2_PRIME_ANCHOR_SIZES", "[8.0]"),
            *(SIZES[0], "[[16],[32],[64],[128],[256]]"),
        ],
    ],
)
def test_anchors_that_none_beat_stay(opts):
    """Each object is one of the anchors."""
    boxes = [[64 - s / 2, 64 - s / 2, s, s] for s in (8, 32, 128)]
    records = [make_record([box], height=160, width=160) for box in boxes]
    cfg = analysis_config(*opts)
    analysis = analyze_dataset(records, cfg)
    model = analysis.settings["MODEL"]
    assert model["ANCHOR_GENERATOR"]["SIZES"] == cfg.MODEL.ANCHOR_GENERATOR.SIZES
    if cfg.MODEL.EFPN.RPN_ON_P2_PRIME:
        assert model["EFPN"]["P2_PRIME_ANCHOR_SIZES"] == [8]
    assert (analysis.advised_overlaps.best == 1).all()
    assert "MODEL.ANCHOR_GENERATOR.SIZES as they are" in format_analysis(analysis)
