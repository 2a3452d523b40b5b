"""The stages in a row, on real files: what each trains, what it starts from, and resuming."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from efpn_d2.engine import DistillationTrainer, EFPNTrainer, StageError
from efpn_d2.modeling.stage_config import without_stage
from tests.engine.test_trainer import Interrupt, differences, single_thread  # noqa: F401
from tests.engine.tiny_training import STOCK_OPTS, register, tiny_config, unregister

EXTENSION, SMALL_HEADS = "backbone.extension.", "roi_heads.small_"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("distillation_test", tmp_path_factory.mktemp("data"))
    yield "distillation_test"
    unregister("distillation_test")


def train(dataset, folder, stage, weights="", *opts, interrupt=False, resume=False):
    """Train 6 iterations of a stage; returns the path of the last checkpoint."""
    opts = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 3, "MODEL.WEIGHTS", weights, *opts)
    cfg = tiny_config(dataset, folder, "DISTILL.STAGE", stage, *opts)
    torch.manual_seed(0)
    trainer = DistillationTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if interrupt:
        trainer.register_hooks([Interrupt()])
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    else:
        trainer.train()
    return trainer.checkpointer.get_checkpoint_file()


@pytest.fixture(scope="module")
def stages(dataset, tmp_path_factory):
    """The paths of the three stages' outputs."""
    folder = tmp_path_factory.mktemp("stages")
    base = train(dataset, folder / "base", "base", "", *STOCK_OPTS)
    distill = train(dataset, folder / "distill", "distill", base)
    head = train(dataset, folder / "head", "head", distill)
    return {"base": base, "distill": distill, "head": head}


def weights(path):
    return torch.load(path)["model"]


def changed(before, after):
    return {k for k, v in after.items() if k not in before or not torch.equal(before[k], v)}


def test_distillation_changes_the_extension_alone_and_all_of_it(stages):
    base, distill = weights(stages["base"]), weights(stages["distill"])
    new = changed(base, distill)
    # The small heads are not trained yet: they are the stock heads.
    assert {k for k in new if not k.startswith(SMALL_HEADS)} == {
        k for k in distill if k.startswith(EXTENSION)
    }
    for key in distill:
        if key.startswith(SMALL_HEADS):
            assert torch.equal(distill[key], base[key.replace("small_", "")]), key


def test_the_head_stage_changes_the_small_heads_alone_and_all_of_them(stages):
    distill, head = weights(stages["distill"]), weights(stages["head"])
    assert changed(distill, head) == {k for k in head if k.startswith(SMALL_HEADS)}


def test_the_extension_can_be_unfrozen_in_the_head_stage(dataset, stages, tmp_path):
    opts = ("DISTILL.UNFREEZE_EXTENSION", True)
    path = train(dataset, tmp_path, "head", stages["distill"], *opts)
    trained = {k.split(".")[1] for k in changed(weights(stages["distill"]), weights(path))}
    assert trained == {"extension", "small_box_head", "small_box_predictor"}


@pytest.mark.parametrize("stage", ["distill", "head"])
def test_an_output_is_a_plain_detector_checkpoint(dataset, stages, stage, tmp_path):
    model = build_model(tiny_config(dataset, tmp_path))
    checkpointer = DetectionCheckpointer(model)
    logged = []
    checkpointer._log_incompatible_keys = logged.append
    checkpointer.load(stages[stage])
    assert logged[0].missing_keys == []
    assert logged[0].unexpected_keys == []


@pytest.mark.parametrize(("stage", "before"), [("distill", "base"), ("head", "distill")])
def test_a_resumed_stage_is_the_uninterrupted_one(dataset, stages, stage, before, tmp_path):
    train(dataset, tmp_path, stage, stages[before], interrupt=True)
    resumed = train(dataset, tmp_path, stage, stages[before], resume=True)
    assert differences(torch.load(resumed), torch.load(stages[stage])) == []


def test_evaluation_in_between_changes_nothing(dataset, stages, tmp_path):
    path = train(dataset, tmp_path, "distill", stages["base"], "TEST.EVAL_PERIOD", 2)
    assert changed(weights(stages["distill"]), weights(path)) == set()


def test_joint_trains_every_part_from_the_base(dataset, stages, tmp_path):
    path = train(dataset, tmp_path, "joint", stages["base"], "DISTILL.COLOR_JITTER", 0.2)
    base, joint = weights(stages["base"]), weights(path)
    still = {k for k in joint if k not in changed(base, joint) and "num_batches" not in k}
    assert {k for k in still if "anchor_generator" not in k and "pixel" not in k} == set()


def test_finetuning_trains_every_part_after_the_other_stages(dataset, stages, tmp_path):
    path = train(dataset, tmp_path, "finetune", stages["head"])
    before, after = weights(stages["head"]), weights(path)
    parts = {"bottom_up", "extension", "fpn_output2", "box_head", "small_box_head", "rpn_head"}
    assert parts <= {k.split(".")[1] for k in changed(before, after)}


def test_the_loader_gives_the_teachers_view(dataset, tmp_path):
    # Heights are drawn from 64 and 80 at student scale; random crops are a share of that.
    opts = ("DISTILL.STAGE", "distill", "INPUT.CROP.ENABLED", False)
    sides = {}
    for view in ("downsample", "upsample"):
        cfg = tiny_config(dataset, tmp_path, *opts, "DISTILL.VIEW", view)
        batches = iter(DistillationTrainer.build_train_loader(cfg))
        samples = [x for _ in range(6) for x in next(batches)]
        sides[view] = [
            {min(x[key].shape[-2:]) for x in samples if key in x}
            for key in ("image", "teacher_image")
        ]
    assert sides == {"downsample": [{64, 80}, {128, 160}], "upsample": [{64, 80}, set()]}


def refusal(dataset, folder, *args):
    with pytest.raises(ValueError, match="DISTILL.STAGE") as error:
        train(dataset, folder, *args)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_stage_refuses_the_weights_of_a_wrong_earlier_stage(dataset, stages, tmp_path):
    assert "distill starts from the output of stage base, but MODEL.WEIGHTS is empty" in refusal(
        dataset, tmp_path, "distill"
    )
    assert "head starts from the output of stage distill, but" in refusal(
        dataset, tmp_path, "head", stages["base"]
    )
    backbone_only = tmp_path / "imagenet.pth"
    base = weights(stages["base"])
    kept = {k: v for k, v in base.items() if k.startswith("backbone.bottom_up.")}
    torch.save({"model": kept}, backbone_only)
    message = refusal(dataset, tmp_path, "distill", str(backbone_only))
    assert f"'{backbone_only}' has no matching weights below backbone.fpn_" in message


def test_a_base_without_the_detectors_masks_is_refused(dataset, stages, tmp_path):
    masks = ("MODEL.MASK_ON", True, "INPUT.CROP.ENABLED", False)
    message = refusal(dataset, tmp_path, "distill", stages["base"], *masks)
    assert "no matching weights below roi_heads.mask_" in message


def test_a_base_with_frozen_batch_normalisation_is_one(dataset, stages, tmp_path):
    frozen = {k: v for k, v in weights(stages["base"]).items() if "num_batches" not in k}
    path = tmp_path / "frozen.pth"
    torch.save({"model": frozen}, path)
    after = weights(train(dataset, tmp_path, "distill", str(path)))
    new = changed(weights(stages["distill"]), after)
    assert {k for k in new if not k.endswith("num_batches_tracked")} == set()


def test_distilling_p3_alone_trains_ftt_alone(dataset, stages, tmp_path):
    p3 = ("DISTILL.LEVELS", ["p3_prime"])
    cfg = tiny_config(dataset, tmp_path, "DISTILL.STAGE", "distill", *p3)
    named = DistillationTrainer.build_model(cfg).named_parameters()
    trained = {k for k, p in named if p.requires_grad}
    assert {k.rsplit(".upsampler.")[0] for k in trained} == {"backbone.extension"}
    after = weights(train(dataset, tmp_path, "distill", stages["base"], *p3))
    start = weights(
        train(dataset, tmp_path / "1", "distill", stages["base"], "SOLVER.BASE_LR", 0.0)
    )
    assert changed(start, after) == trained


def test_a_stage_that_does_not_fit_the_detector_is_refused(dataset, tmp_path):
    assert "'destill', which does not exist" in refusal(dataset, tmp_path, "destill")
    cascade = ("MODEL.ROI_HEADS.NAME", "EFPNCascadeROIHeads",
               "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)  # fmt: skip
    assert "train it with DISTILL.STAGE joint" in refusal(dataset, tmp_path, "head", "", *cascade)
    retinanet = ("MODEL.META_ARCHITECTURE", "RetinaNet")
    assert "trains two-stage detectors" in refusal(dataset, tmp_path, "distill", "", *retinanet)
    for stage in ("distill", "joint"):
        message = refusal(dataset, tmp_path, stage, "", *STOCK_OPTS)
        assert "build_resnet_fpn_backbone does not have" in message


def test_another_teachers_weights_are_loaded(dataset, stages, tmp_path):
    opts = ("DISTILL.TEACHER_WEIGHTS", stages["head"])
    cfg = tiny_config(dataset, tmp_path, "DISTILL.STAGE", "distill", *opts)
    model = DistillationTrainer.build_model(cfg)
    teacher = model.teacher
    own = EFPNTrainer.build_model(without_stage(cfg))
    DetectionCheckpointer(own).load(stages["head"])
    expected = own.backbone.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in teacher.state_dict().items())


def teacher_refusal(dataset, tmp_path, weights):
    opts = ("DISTILL.TEACHER_WEIGHTS", weights)
    with pytest.raises(StageError, match="DISTILL.TEACHER_WEIGHTS: ") as error:
        DistillationTrainer.build_model(
            tiny_config(dataset, tmp_path, "DISTILL.STAGE", "joint", *opts)
        )
    return str(error.value)


def test_a_teacher_without_the_pyramids_weights_is_refused(dataset, stages, tmp_path):
    path = str(tmp_path / "teacher.pth")
    assert f"'{path}' does not exist" in teacher_refusal(dataset, tmp_path, path)
    base = weights(stages["base"])
    kept = {k: v for k, v in base.items() if not k.startswith("backbone.fpn_output")}
    torch.save({"model": kept}, path)
    assert "lacks 8 tensors" in teacher_refusal(dataset, tmp_path, path)
    wide = {k: torch.cat([v, v]) if k.startswith("backbone.fpn_") else v for k, v in base.items()}
    torch.save({"model": wide}, path)
    assert "lacks 16 tensors" in teacher_refusal(dataset, tmp_path, path)
    torch.save({"model": {"weight": torch.zeros(1)}}, path)
    assert "tensors of the pyramid" in teacher_refusal(dataset, tmp_path, path)


def test_a_stock_detector_can_teach_one_with_sgdm(dataset, stages, tmp_path):
    sgdm = ("MODEL.SGDM.AFTER_STAGES", ["res2", "res3"])
    opts = ("DISTILL.STAGE", "joint", "DISTILL.TEACHER_WEIGHTS", stages["base"], *sgdm)
    model = DistillationTrainer.build_model(tiny_config(dataset, tmp_path, *opts))
    teacher = model.teacher
    expected = weights(stages["base"])
    assert torch.equal(teacher.fpn_output2.weight, expected["backbone.fpn_output2.weight"])


SLIM = ("MODEL.EFPN.PRESET", "slim", "MODEL.EFPN.RPN_ON_P2_PRIME", True)


def test_an_add_on_leaves_the_detector_as_it_is_for_large_boxes(dataset, stages, tmp_path):
    path = train(dataset, tmp_path, "add_on", stages["base"], *SLIM)
    base, after = weights(stages["base"]), weights(path)
    new = changed(base, after)
    small_rpn = "proposal_generator.rpn_head.small_"
    assert all(k.startswith((EXTENSION, SMALL_HEADS, small_rpn)) for k in new)
    assert {k.split(".")[0] for k in new} == {"backbone", "roi_heads", "proposal_generator"}
    # Trained, not only started: what reads P'2 began at zero.
    assert after["roi_heads.small_box_head.fc1.weight"][:, 16 * 49 :].any()

    cfg = tiny_config(dataset, tmp_path, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, *SLIM)
    extended = build_model(cfg).eval()
    cfg.merge_from_list(STOCK_OPTS)
    stock = build_model(cfg).eval()
    DetectionCheckpointer(extended).load(path)
    DetectionCheckpointer(stock).load(stages["base"])
    generator = torch.Generator().manual_seed(0)
    images = extended.preprocess_image(
        [{"image": 255 * torch.rand(3, 64, 96, generator=generator)}]
    )
    large = Instances(
        (64, 96), proposal_boxes=Boxes(torch.tensor([[2.0, 2, 60, 50], [9, 9, 90, 60]]))
    )
    large.objectness_logits = torch.zeros(2)
    with torch.no_grad():
        maps, stock_maps = (model.backbone(images.tensor) for model in (extended, stock))
        assert all(torch.equal(maps[k], stock_maps[k]) for k in stock_maps)
        found, expected = (
            model.roi_heads(images, features, [large])[0][0]
            for model, features in ((extended, maps), (stock, stock_maps))
        )
    assert len(found) == len(expected) > 0
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_an_add_on_is_for_a_detector_with_weights(dataset, tmp_path):
    with pytest.raises(StageError, match="add_on starts from the output of stage base"):
        train(dataset, tmp_path, "add_on", "", *SLIM)


@pytest.mark.parametrize("stage", ["distill", "joint"])
def test_a_narrower_p2_prime_cannot_be_distilled(dataset, stages, stage, tmp_path):
    with pytest.raises(StageError, match=f"{stage} compares P'2, which has 3 .*P2, which has 16"):
        train(dataset, tmp_path, stage, stages["base"], *SLIM)
