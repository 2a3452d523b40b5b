"""The stages in a row, interrupted and not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from efpn_d2.engine import DistillationTrainer, StageError
from efpn_d2.engine.stage_folder import same_training
from efpn_d2.engine.stages import run_stages, stage_configs
from tests.engine.test_trainer import single_thread  # noqa: F401
from tests.engine.tiny_training import register, tiny_config, unregister

SCHEDULE = [["base", 4, 0.002], ["distill", 4, 0.001], ["head", 4, 0.001]]
STAGES = ("base", "distill", "head")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("stages_test", tmp_path_factory.mktemp("data"))
    yield "stages_test"
    unregister("stages_test")


def make_config(dataset, folder, *opts):
    opts = ("DISTILL.SCHEDULE", SCHEDULE, "SOLVER.CHECKPOINT_PERIOD", 2, *opts)
    return tiny_config(dataset, folder, "SOLVER.MAX_ITER", 8, "SOLVER.STEPS", (4, 6), *opts)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    return folder, run_stages(make_config(dataset, folder))


def weights(folder, stage):
    return torch.load(Path(folder, stage, "model_final.pth"))["model"]


def test_configs_pass_the_weights_on_and_scale_the_schedule(dataset, tmp_path):
    base, distill, head = stage_configs(make_config(dataset, tmp_path, "MODEL.WEIGHTS", "r.pkl"))
    assert [c.DISTILL.STAGE for c in (base, distill, head)] == list(STAGES)
    assert base.MODEL.WEIGHTS == "r.pkl"
    assert str(tmp_path / "base" / "model_final.pth") == distill.MODEL.WEIGHTS
    assert str(tmp_path / "distill" / "model_final.pth") == head.MODEL.WEIGHTS
    assert base.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    assert base.MODEL.ROI_HEADS.NAME == "StandardROIHeads"
    assert distill.MODEL.BACKBONE.NAME == "build_resnet_efpn_backbone"
    architectures = [c.MODEL.META_ARCHITECTURE for c in (base, distill, head)]
    assert architectures == ["EFPNRCNN", "DistillationRCNN", "DistillationRCNN"]
    assert head.MODEL.ROI_HEADS.NAME == "OHEMSmallROIHeads"
    solver = distill.SOLVER
    assert solver.MAX_ITER == 4
    assert solver.STEPS == (2, 3)
    assert [c.SOLVER.BASE_LR for c in (base, distill, head)] == [0.002, 0.001, 0.001]


def test_the_base_of_a_cascade_is_the_stock_cascade(dataset, tmp_path):
    heads = ("MODEL.ROI_HEADS.NAME", "EFPNCascadeROIHeads")
    schedule = ("DISTILL.SCHEDULE", [["base", 2, 0.002], ["distill", 2, 0.001]])
    base, distill = stage_configs(make_config(dataset, tmp_path, *heads, *schedule))
    assert base.MODEL.ROI_HEADS.NAME == "CascadeROIHeads"
    assert distill.MODEL.ROI_HEADS.NAME == "EFPNCascadeROIHeads"


def test_the_base_with_dcloss_has_heads_that_know_it(dataset, tmp_path):
    opts = ("MODEL.EFPN_BS.DCLOSS_ENABLED", True, "MODEL.EFPN.RPN_ON_P2_PRIME", True)
    base, distill, _ = stage_configs(make_config(dataset, tmp_path, *opts))
    assert base.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    assert distill.MODEL.EFPN.ROUTING == "auto"
    model = DistillationTrainer.build_model(base)
    balanced = {k for k, _ in model.named_modules() if k.endswith(".gradient_balance")}
    heads = ("proposal_generator", "roi_heads.box_predictor")
    assert balanced == {f"{head}.gradient_balance" for head in heads}


def test_the_base_keeps_the_rpn_that_knows_the_similarity(dataset, tmp_path):
    opts = ("MODEL.EFPN.SIMILARITY", "nwd", "MODEL.EFPN.SIMILARITY_CONSTANTS", [12.0])
    base, *_ = stage_configs(make_config(dataset, tmp_path, *opts))
    names = (base.MODEL.BACKBONE.NAME, base.MODEL.ROI_HEADS.NAME)
    assert names == ("build_resnet_fpn_backbone", "StandardROIHeads")
    rpn = DistillationTrainer.build_model(base).proposal_generator
    assert rpn.assigner.similarity == ("nwd", (12.0,), (0.3, 0.7))
    assert rpn.in_features == ["p2", "p3", "p4", "p5", "p6"]


def test_the_base_has_what_is_inserted_into_the_stock_pyramid(dataset, tmp_path):
    opts = ("MODEL.SGDM.AFTER_STAGES", ["res3"], "MODEL.SGDM.ON_LEVELS", ["p2_prime", "p3"])
    base, distill, _ = stage_configs(make_config(dataset, tmp_path, *opts))
    states = [DistillationTrainer.build_model(c).state_dict() for c in (base, distill)]
    blocks = [{k.split(".sgdm.")[0] for k in state if ".sgdm." in k} for state in states]
    assert blocks == [{"backbone.bottom_up.res3", "backbone.enhancement"}] * 2
    new = states[1].keys() - states[0].keys()
    own = ("backbone.extension.", "roi_heads.small_", "backbone.enhancement.sgdm.p2_prime.")
    assert states[0].keys() <= states[1].keys()
    assert all(k.startswith(own) for k in new)


def test_each_stage_starts_where_the_one_before_ended(finished):
    folder, records = finished
    base, distill, head = (weights(folder, stage) for stage in STAGES)
    assert all(torch.equal(distill[key], value) for key, value in base.items())
    assert all(torch.equal(head[k], v) for k, v in distill.items() if "small_" not in k)
    assert [r["stage"] for r in records] == list(STAGES)
    for record, stage in zip(records, STAGES, strict=True):
        assert record == json.loads(Path(folder, stage, "record.json").read_text())
        assert record["seconds"] > 0
        assert record["peak_memory_gib"] > 0
        assert record["seed"] == 5
        assert "AP" in record["metrics"]["bbox"]


def test_finished_stages_are_skipped(dataset, finished):
    folder, records = finished
    files = sorted(p for p in Path(folder).rglob("*.pth"))
    before = [p.stat().st_mtime_ns for p in files]
    assert run_stages(make_config(dataset, folder)) == records
    assert [p.stat().st_mtime_ns for p in files] == before


def test_another_later_stage_leaves_the_finished_ones_alone(dataset, finished, tmp_path):
    longer = [*SCHEDULE, ["finetune", 2, 0.001]]
    copy = copied(finished, tmp_path)
    again = run_stages(make_config(dataset, copy, "DISTILL.SCHEDULE", longer))
    assert again[:3] == finished[1]
    assert again[3]["stage"] == "finetune"


def copied(finished, tmp_path):
    """A folder of one's own with finished stages."""
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    for file in copy.glob("*/*.yaml"):
        file.write_text(file.read_text().replace(str(finished[0]), str(copy)))
    return copy


def test_another_config_in_the_same_folder_is_refused(dataset, finished):
    folder, _ = finished
    with pytest.raises(ValueError, match="trained with another config .*choose another OUTPUT_DIR"):
        run_stages(make_config(dataset, folder, "MODEL.EFPN.PRESET", "reference"))


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", 3, STAGES),
        ("DATALOADER.NUM_WORKERS", 1, STAGES),
        ("MODEL.DEVICE", "cuda", STAGES),
        ("TRAINING.ACCUMULATE_GRADIENTS", 2, STAGES),
        ("DISTILL.OHEM_BATCH", 64, ("base", "distill")),
        ("DISTILL.LEVELS", ["p2_prime"], ("base", "head")),
        ("MODEL.EFPN.SMALL_BOX_SIZE", 20.0, ()),
        ("SEED", 6, ()),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", STAGES),
    ],
)
def test_a_stage_is_another_training_by_what_it_depends_on(dataset, finished, key, value, stages):
    configs = stage_configs(make_config(dataset, finished[0], key, value))
    assert tuple(c.DISTILL.STAGE for c in configs if same_training(c)) == stages


def test_an_evaluation_in_a_stages_folder_does_not_make_it_another_training(
    dataset, finished, tmp_path
):
    copy = copied(finished, tmp_path)
    noted = copy / "base" / "config.yaml"
    noted.write_text(noted.read_text().replace("WEIGHTS: ''", "WEIGHTS: some.pth"))
    assert "some.pth" in noted.read_text()
    assert run_stages(make_config(dataset, copy)) == finished[1]


@pytest.mark.parametrize("record", [False, True])
def test_stopped_before_its_output_was_written_a_stage_writes_it(
    dataset, finished, tmp_path, record
):
    copy = copied(finished, tmp_path)
    (copy / "distill" / "model_final.pth").unlink()
    (copy / "distill" / "last_checkpoint").write_text("model_0000003.pth")
    if not record:
        (copy / "distill" / "record.json").unlink()
    shutil.rmtree(copy / "head")
    records = run_stages(make_config(dataset, copy))
    assert [r["metrics"] for r in records] == [r["metrics"] for r in finished[1]]
    for stage in ("distill", "head"):
        ours, expected = weights(copy, stage), weights(finished[0], stage)
        assert all(torch.equal(ours[key], value) for key, value in expected.items())


def test_a_stage_whose_checkpoint_is_gone_says_so(dataset, finished, tmp_path):
    copy = copied(finished, tmp_path)
    (copy / "distill" / "model_final.pth").unlink()
    (copy / "distill" / "record.json").unlink()
    shutil.rmtree(copy / "head")
    with pytest.raises(StageError, match="stage distill: .*last_checkpoint' names .* not there"):
        run_stages(make_config(dataset, copy))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DISTILL.OHEM_POSITIVE_FRACTION", 2.0], "stage head: DISTILL.OHEM_BATCH"),
        (["DISTILL.VIEW", "downsampel"], "stage distill: DISTILL.VIEW is 'downsampel'"),
        (["DISTILL.COLOR_JITTER", 2.0], "stage distill: DISTILL.COLOR_JITTER"),
        (["DISTILL.TEACHER_WEIGHTS", "none.pth"], "stage distill: .* 'none.pth' does not exist"),
        (["MODEL.EFPN.ROUTING", "none"], "stage head: .* MODEL.EFPN.ROUTING is none"),
        (["MODEL.ROI_HEADS.NAME", "EFPNCascadeROIHeads"], "stage head: .* DISTILL.STAGE joint"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet"], "stage (base|distill): "),
    ],
)
def test_mistakes_of_later_stages_are_found_before_the_first_is_trained(
    dataset, tmp_path, opts, message
):
    agnostic = ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    with pytest.raises(StageError, match=message):
        run_stages(make_config(dataset, tmp_path, *agnostic, *opts))
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_an_earlier_stage_trains_may_be_named(dataset, tmp_path):
    schedule = [["base", 2, 0.002], ["joint", 2, 0.001]]
    teacher = ("DISTILL.TEACHER_WEIGHTS", str(tmp_path / "base" / "model_final.pth"))
    records = run_stages(make_config(dataset, tmp_path, "DISTILL.SCHEDULE", schedule, *teacher))
    assert [r["stage"] for r in records] == ["base", "joint"]


def test_a_folder_of_before_a_key_existed_has_its_default(dataset, finished, tmp_path):
    copy = copied(finished, tmp_path)
    for folder in copy.iterdir():
        # Neither had such folders a note.
        values = yaml.safe_load((folder / "stage.yaml").read_text())
        (folder / "stage.yaml").unlink()
        del values["TRAINING"]
        # Nor did they name what the stage trains.
        values["MODEL"]["META_ARCHITECTURE"] = "GeneralizedRCNN"
        if folder.name == "head":
            values["MODEL"]["ROI_HEADS"]["NAME"] = "EFPNROIHeads"
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="trained with another config"):
        run_stages(make_config(dataset, copy, "TRAINING.AMP_PRECISION", "bfloat16"))
    assert run_stages(make_config(dataset, copy)) == finished[1]


def test_a_step_that_falls_on_the_end_of_a_short_stage_is_left_out(dataset, tmp_path):
    (only,) = stage_configs(make_config(dataset, tmp_path, "DISTILL.SCHEDULE", [["base", 2, 0.1]]))
    assert only.SOLVER.STEPS == (1,)


@pytest.mark.parametrize(
    "schedule", [[], [["base", 4]], [["base", 4, 0.1], ["destill", 4, 0.1]], [["base", 0, 0.1]]]
)
def test_a_schedule_that_is_none_is_one_clear_sentence(dataset, tmp_path, schedule):
    with pytest.raises(ValueError, match="list the stages as"):
        stage_configs(make_config(dataset, tmp_path, "DISTILL.SCHEDULE", schedule))


CHILD = """
import sys, torch
from pathlib import Path
from efpn_d2.engine.stages import run_stages
from tests.engine.test_stages import make_config
from tests.engine.tiny_training import register
torch.set_num_threads(1)
data, folder = map(Path, sys.argv[1:])
if (data / "annotations.json").exists():
    from detectron2.data.datasets import register_coco_instances
    register_coco_instances("stages_test", {}, str(data / "annotations.json"), str(data / "images"))
else:
    register("stages_test", data)
run_stages(make_config("stages_test", folder))
"""


def test_killed_in_each_stage_it_ends_with_the_same_weights_and_metrics(finished, tmp_path):
    folder, data = tmp_path / "stages", tmp_path / "data"
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(data), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for stage in STAGES:
        child = subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not Path(folder, stage, "last_checkpoint").exists():
            assert child.poll() is None, f"it ended before a checkpoint of stage {stage}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not Path(folder, stage, "record.json").exists()
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    for stage in STAGES:
        ours, expected = weights(folder, stage), weights(finished[0], stage)
        assert all(torch.equal(ours[key], value) for key, value in expected.items())
        records = [
            json.loads(Path(f, stage, "record.json").read_text()) for f in (folder, finished[0])
        ]
        assert records[0]["metrics"] == records[1]["metrics"]
