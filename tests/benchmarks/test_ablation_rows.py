import pytest
from ablation_rows import ROWS, base_config, row_config
from row_spec import PROTOCOLS, VARIANTS

from efpn_d2.engine.stages import stage_configs

pytestmark = pytest.mark.fast

SMALL = PROTOCOLS["small"]
WEIGHTS = {name: f"{name}.pth" for name in ROWS}


def make(row, variant="native1x", protocol=SMALL):
    return row_config(ROWS[row], protocol, variant, 0, WEIGHTS)


def own_iterations(row, variant, protocol):
    return sum(n for _, n, _ in make(row, variant, protocol).DISTILL.SCHEDULE)


def is_compared(name, row):
    return row.stages and not row.frozen_backbone and not name.startswith("base")


@pytest.mark.parametrize("row", [name for name, row in ROWS.items() if is_compared(name, row)])
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_compared_row_has_the_same_total_and_the_same_data(variant, protocol, row):
    common = base_config(protocol, variant, 0)
    total = sum(iterations for _, iterations, _ in common.DISTILL.SCHEDULE)
    cfg = make(row, variant, protocol)
    start = ROWS[row].start
    before = own_iterations(start, variant, protocol) if start else 0
    assert before + own_iterations(row, variant, protocol) == total
    assert (f"{start}.pth" if start else "") == cfg.MODEL.WEIGHTS
    assert cfg.DATASETS.TRAIN == common.DATASETS.TRAIN
    batches = [c.SOLVER.IMS_PER_BATCH for c in stage_configs(cfg)]
    assert batches == [common.SOLVER.IMS_PER_BATCH] * len(cfg.DISTILL.SCHEDULE)


def test_rows_that_compare_maps_train_equally_long():
    totals = {own_iterations(name, "native1x", SMALL) for name in ("p3_1x", "p3_2x", "p3_prime")}
    assert len(totals) == 1


@pytest.mark.parametrize("row", [name for name, row in ROWS.items() if not row.stages])
def test_rows_without_stages_start_from_trained_weights(row):
    cfg = make(row)
    assert cfg.DISTILL.SCHEDULE == []
    assert cfg.MODEL.WEIGHTS in ("base.pth", "base_multi_scale.pth", "fpn_1x.pth")


def test_bins_are_in_pixels_of_the_annotations():
    native1x, native2x = (base_config(SMALL, variant, 0) for variant in VARIANTS)
    assert native1x.EVALUATION.SIZE_BINS == [0, 8, 16, 32]
    assert native2x.EVALUATION.SIZE_BINS == [0, 16, 32, 64]
    assert (native1x.DISTILL.VIEW, native2x.DISTILL.VIEW) == ("upsample", "downsample")


def test_2x_rows_see_the_image_at_twice_the_side():
    assert make("fpn_1x").INPUT.MIN_SIZE_TEST == 96
    for row in ("fpn_2x", "teacher_2x", "p3_2x", "fpn_1x_at_2x"):
        assert make(row).INPUT.MIN_SIZE_TRAIN == (192,)
        assert make(row).INPUT.MIN_SIZE_TEST == 192


def test_a_tuned_teacher_goes_on_from_the_base_at_2x_and_teaches_its_student():
    teacher, student = make("fpn_2x_from_base"), make("efpn_tuned_teacher")
    assert teacher.MODEL.WEIGHTS == student.MODEL.WEIGHTS == "base.pth"
    assert teacher.INPUT.MIN_SIZE_TRAIN == (192,) and student.INPUT.MIN_SIZE_TRAIN == (96,)
    assert [stage for stage, _, _ in teacher.DISTILL.SCHEDULE] == ["base"]  # stock FPN
    assert student.DISTILL.TEACHER_WEIGHTS == "fpn_2x_from_base.pth"


def test_a_multi_scale_base_sees_both_views_and_is_tested_on_the_students():
    cfg = make("base_multi_scale")
    assert cfg.INPUT.MIN_SIZE_TRAIN == (96, 192)
    assert cfg.INPUT.MIN_SIZE_TEST == 96


def test_an_object_fits_the_same_anchor_on_p3_of_2x_and_on_p3_prime():
    # On the 2x image it is twice as large in pixels.
    assert make("p3_1x").MODEL.ANCHOR_GENERATOR.SIZES == [[12]]
    assert make("p3_2x").MODEL.ANCHOR_GENERATOR.SIZES == [[12]]
    assert make("p3_prime").MODEL.ANCHOR_GENERATOR.SIZES == [[6]]


def test_the_upper_bound_takes_all_lengths_in_pixels_of_its_images():
    native1x, native2x = (make("teacher_p2", variant) for variant in VARIANTS)
    assert (native1x.INPUT.MIN_SIZE_TEST, native2x.INPUT.MIN_SIZE_TEST) == (96, 192)
    assert native1x.MODEL.EFPN.SMALL_BOX_SIZE == 16
    assert native2x.MODEL.EFPN.SMALL_BOX_SIZE == 32
    assert native1x.MODEL.ANCHOR_GENERATOR.SIZES == [[6], [12], [24], [48], [96]]
    assert native2x.MODEL.ANCHOR_GENERATOR.SIZES == [[12], [24], [48], [96], [192]]
