import argparse
import importlib.util
from pathlib import Path

import pytest

from efpn_d2.engine.stages import stage_configs

pytestmark = pytest.mark.fast

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ablation.py"


def load_script():
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ablation = load_script()


@pytest.fixture
def args(tmp_path):
    return argparse.Namespace(device="cpu", output=tmp_path, iterations_scale=1.0)


@pytest.mark.parametrize("row", ablation.ROWS)
@pytest.mark.parametrize("variant", ["native1x", "native2x"])
def test_every_row_has_the_same_total_of_iterations_and_the_same_data(args, row, variant):
    base = ablation.make_config(args, variant, 0, "shared").DISTILL.SCHEDULE[0][1]
    cfg = ablation.row_config(args, variant, 0, row)
    own = sum(iterations for _, iterations, _ in cfg.DISTILL.SCHEDULE)
    starts_from_base = cfg.MODEL.WEIGHTS.endswith("shared/base/model_final.pth")
    assert starts_from_base == (cfg.DISTILL.SCHEDULE[0][0] != "base")
    assert own + (base if starts_from_base else 0) == 6000
    assert (f"synthetic_signs_{variant}_train",) == cfg.DATASETS.TRAIN
    assert [c.SOLVER.IMS_PER_BATCH for c in stage_configs(cfg)] == [8] * len(cfg.DISTILL.SCHEDULE)


def test_bins_are_in_pixels_of_the_annotations(args):
    native1x, native2x = (
        ablation.make_config(args, variant, 0, "x") for variant in ("native1x", "native2x")
    )
    assert native1x.EVALUATION.SIZE_BINS == [0, 8, 16, 32]
    assert native2x.EVALUATION.SIZE_BINS == [0, 16, 32, 64]
    assert (native1x.DISTILL.VIEW, native2x.DISTILL.VIEW) == ("upsample", "downsample")


def test_fpn_2x_sees_the_image_at_twice_the_side(args):
    one, two = (ablation.row_config(args, "native1x", 0, row) for row in ("fpn_1x", "fpn_2x"))
    assert two.INPUT.MIN_SIZE_TEST == 2 * one.INPUT.MIN_SIZE_TEST == 192
    assert two.INPUT.MIN_SIZE_TRAIN == (192,)
