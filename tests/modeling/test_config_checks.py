"""Options that no part of a detector would read are refused by every part and command of ours."""

import pytest
import yaml
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_model

import efpn_d2
from efpn_d2.dataset_advice.detector import describe_detector
from efpn_d2.engine import DistillationTrainer, EFPNTrainer
from efpn_d2.inference import EFPNPredictor, load_inference_config
from efpn_d2.modeling import EFPNRCNN, DistillationRCNN, OHEMSmallROIHeads
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.stage_config import stage_config, without_stage
from efpn_d2.modeling.stage_table import STAGES, StageError
from tests.modeling.helpers import tiny_config

pytestmark = pytest.mark.fast

STOCK = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.EFPN.ROUTING": "none",
}
# One part of ours in a detector that is Detectron2's otherwise.
PARTS = {
    "backbone": {"MODEL.BACKBONE.NAME": "build_resnet_enhanced_fpn_backbone"},
    "extended backbone": {"MODEL.BACKBONE.NAME": "build_resnet_efpn_backbone"},
    "RPN": {"MODEL.PROPOSAL_GENERATOR.NAME": "EFPNRPN"},
    "heads": {"MODEL.ROI_HEADS.NAME": "EFPNROIHeads"},
    "meta-architecture": {"MODEL.META_ARCHITECTURE": "EFPNRCNN"},
}
# Each with what is refused, and what reads it.
OPTIONS = {
    "DCLoss": ({"MODEL.EFPN_BS.DCLOSS_ENABLED": True}, "MODEL.(PROPOSAL_GENERATOR|ROI_HEADS).NAME"),
    "CEM": ({"MODEL.EFPN_BS.CEM_ENABLED": True}, "MODEL.BACKBONE.NAME"),
    "FBSM": ({"MODEL.EFPN_BS.FBSM_ENABLED": True}, "MODEL.BACKBONE.NAME"),
    "SGDM": ({"MODEL.SGDM.AFTER_STAGES": ["res3"]}, "MODEL.BACKBONE.NAME"),
    "masks' loss": (
        {"MODEL.EFPN_BS.FBSM_ENABLED": True, "MODEL.EFPN_BS.FBSM_MASK_LOSS_WEIGHT": 1.0},
        "MODEL.(BACKBONE.NAME|META_ARCHITECTURE)",
    ),
    "similarity": (
        {"MODEL.EFPN.SIMILARITY": "nwd", "MODEL.EFPN.SIMILARITY_CONSTANTS": [12.0]},
        "MODEL.PROPOSAL_GENERATOR.NAME",
    ),
}
READ_BY = {
    ("CEM", "backbone"), ("CEM", "extended backbone"), ("FBSM", "backbone"),
    ("FBSM", "extended backbone"), ("SGDM", "backbone"), ("SGDM", "extended backbone"),
    ("similarity", "RPN"),
}  # fmt: skip


def config(*options):
    cfg = tiny_config("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml")
    for values in options:
        cfg.merge_from_list([x for pair in values.items() for x in pair])
    return cfg


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("option", OPTIONS)
def test_one_part_of_ours_speaks_for_all(option, part):
    values, place = OPTIONS[option]
    cfg = config(STOCK, PARTS[part], values)
    if (option, part) in READ_BY:
        build_model(cfg)
        return
    with pytest.raises(ValueError, match=f"{place} .*: set .* to (EFPN|.*_enhanced_)"):
        build_model(cfg)


@pytest.mark.parametrize("option", OPTIONS)
def test_in_detectron2s_own_parts_alone_the_commands_speak(option, tmp_path):
    values, place = OPTIONS[option]
    cfg = config(STOCK, values)
    build_model(cfg)  # nothing of this package runs
    (tmp_path / "config.yaml").write_text(cfg.dump())
    for command in (
        EFPNTrainer.build_model,
        DistillationTrainer.build_model,
        EFPNPredictor,
        describe_detector,
        lambda cfg: load_inference_config(str(tmp_path / "config.yaml")),
    ):
        if (option, command) == ("similarity", describe_detector):
            continue  # whose advice is what its constants should be
        with pytest.raises(ValueError, match=place):
            command(cfg)


STAGE = "DISTILL.STAGE"


@pytest.mark.parametrize("stage", ["distill", "joint", "head", "add_on"])
@pytest.mark.parametrize("architecture", ["GeneralizedRCNN", "EFPNRCNN"])
def test_a_stage_names_its_meta_architecture(stage, architecture):
    cfg = config({STAGE: stage, "MODEL.META_ARCHITECTURE": architecture})
    message = f"STAGE is {stage}, .*META_ARCHITECTURE {architecture}: .*to DistillationRCNN"
    for build in (build_backbone, build_model):
        with pytest.raises(StageError, match=message):
            build(cfg)
    model = build_model(stage_config(cfg))
    assert type(model) is DistillationRCNN
    assert (model.detect, model.distill) == {
        "distill": (False, True), "joint": (True, True), "head": (True, False),
        "add_on": (True, False),
    }[stage]  # fmt: skip
    assert isinstance(model.roi_heads, OHEMSmallROIHeads) == (stage == "head")


def test_the_stage_head_names_its_heads():
    cfg = config({STAGE: "head", "MODEL.META_ARCHITECTURE": "DistillationRCNN"})
    with pytest.raises(StageError, match="ROI_HEADS.NAME EFPNROIHeads: .* OHEMSmallROIHeads"):
        build_model(cfg)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_are_resolved_once_and_for_all(stage):
    cfg = config({STAGE: stage})
    before = cfg.dump()
    resolved = stage_config(cfg)
    assert stage_config(resolved) is resolved
    assert cfg.dump() == before
    check_config(resolved)
    plain = stage in ("", "base", "finetune")
    assert (resolved is cfg) == plain
    assert without_stage(resolved).DISTILL.STAGE == ""
    check_config(without_stage(cfg))


@META_ARCH_REGISTRY.register()
class SomeonesDistillationRCNN(DistillationRCNN):
    pass


def test_a_subclass_of_the_distilled_detector_is_kept():
    name = "SomeonesDistillationRCNN"
    cfg = config({STAGE: "joint", "MODEL.META_ARCHITECTURE": name})
    assert stage_config(cfg) is cfg
    assert type(build_model(cfg)) is SomeonesDistillationRCNN


@pytest.mark.parametrize("name", ["RetinaNet", "EFPNRetinaNet", "PanopticFPN", "nothing"])
def test_other_meta_architectures_have_no_stages(name):
    with pytest.raises(StageError, match=f"two-stage .* is {name}: use DistillationRCNN"):
        check_config(config({STAGE: "joint", "MODEL.META_ARCHITECTURE": name}))


def test_an_unknown_stage_is_refused_without_a_trainer_too():
    with pytest.raises(StageError, match="'destill', which does not exist"):
        build_backbone(config({STAGE: "destill"}))


@pytest.mark.parametrize("stage", ["base", "distill", "head", "joint", "finetune", "add_on"])
def test_packaged_configs_name_what_their_stage_trains(stage):
    cfg = efpn_d2.get_config(f"Distillation/faster_rcnn_R_50_EFPN_{stage}.yaml")
    assert stage == cfg.DISTILL.STAGE
    assert stage_config(cfg) is cfg
    check_config(cfg)


def test_inference_needs_neither_the_stage_nor_its_teacher(tmp_path):
    options = {STAGE: "distill", "DISTILL.TEACHER_WEIGHTS": "none.pth"}
    cfg = config(options)
    with pytest.raises(StageError, match="'none.pth' does not exist"):
        build_model(stage_config(cfg))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(cfg.dump())))
    loaded = load_inference_config(str(tmp_path / "config.yaml"))
    assert (loaded.DISTILL.STAGE, loaded.DISTILL.TEACHER_WEIGHTS) == ("", "none.pth")
    assert type(build_model(loaded)) is EFPNRCNN
    assert type(EFPNPredictor(cfg).model) is EFPNRCNN
    assert describe_detector(cfg).pooled == ("p2", "p3", "p4", "p5")
