"""The changes of docs/extending.md, each made by the code that stands there."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    build_model,
)
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from efpn_d2.dataset_advice.detector import describe_detector
from efpn_d2.engine import DistillationTrainer
from efpn_d2.engine.stages import run_stages, stage_configs
from efpn_d2.modeling import BOX_ROUTER_REGISTRY, EFPN, UPSAMPLER_REGISTRY, EFPNWithTTA
from efpn_d2.modeling.stage_table import STAGES
from tests.dataset_advice.helpers import analysis_config
from tests.engine import tiny_training
from tests.modeling.helpers import tiny_config, training_input, with_teacher_image, without_gradient

TEXT = (Path(__file__).resolve().parent.parent / "docs/extending.md").read_text()
SECTIONS = dict(
    section.split("\n", 1) for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
)
BOXES = [[4, 4, 20, 18], [30, 10, 42, 60], [50, 6, 90, 60]]


def fenced(section: str, language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return block


@pytest.fixture
def follow(monkeypatch):
    """Runs the code of a section; returns its names and puts its config lines into a config."""
    for registry in (
        BACKBONE_REGISTRY,
        BOX_ROUTER_REGISTRY,
        ROI_BOX_HEAD_REGISTRY,
        UPSAMPLER_REGISTRY,
    ):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
    before = dict(STAGES)

    def run(section: str, cfg: CfgNode) -> dict:
        names = {"__name__": "my_project"}
        exec(fenced(section, "python"), names)
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(fenced(section, "yaml"))))
        return names

    yield run
    STAGES.clear()
    STAGES.update(before)


def assert_trains(cfg: CfgNode) -> torch.nn.Module:
    """Every trainable parameter of the detector gets a gradient; the losses are finite."""
    torch.manual_seed(0)
    model = DistillationTrainer.build_model(cfg).train()
    with EventStorage():
        inputs = [training_input(BOXES, size=(64, 128)), training_input([], size=(64, 128))]
        losses = model(with_teacher_image(inputs))
    assert all(torch.isfinite(x) for x in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(model) == []
    return model


def test_twelve_changes_are_described():
    assert len([name for name in SECTIONS if name != "More"]) == 12


@pytest.mark.fast
@pytest.mark.parametrize("preset", ["paper", "slim"])
def test_an_up_sampler(follow, preset):
    cfg = tiny_config()
    cfg.MODEL.EFPN.PRESET = preset
    cfg.MODEL.EFPN.LAZY = preset == "paper"
    cfg.MODEL.EFPN.LAZY_TILE_SIDES = [16]
    follow("An upsampler", cfg)
    backbone = assert_trains(cfg).backbone.eval()
    upsampler = backbone.extension.upsampler
    assert list(upsampler.state_dict()) == ["correction.weight", "correction.bias"]
    if not cfg.MODEL.EFPN.LAZY:
        return
    images = torch.randn(1, 3, 128, 128)
    boxes, pooler = [Boxes(torch.tensor([[40.0, 50, 48, 60]]))], ROIPooler(7, (0.5,), 0, "ROIAlign")
    with torch.no_grad():
        lazy = backbone(images)["p2_prime"]
        expected = pooler([EFPN.forward(backbone, images)["p2_prime"]], boxes)
        torch.testing.assert_close(lazy.pool(pooler, boxes), expected, rtol=0, atol=1e-4)
    assert lazy.active_share < 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    tiny_training.register("extending_test", tmp_path_factory.mktemp("data"))
    yield "extending_test"
    tiny_training.unregister("extending_test")


def test_a_backbone_in_all_stages(follow, dataset, tmp_path):
    cfg = tiny_training.tiny_config(dataset, tmp_path)
    follow("A backbone", cfg)
    cfg.DISTILL.SCHEDULE = [[x, 1, 0.001] for x in STAGES if x]
    run_stages(cfg)
    files = {stage: tmp_path / stage / "model_final.pth" for stage in STAGES if stage}
    weights = {stage: torch.load(file)["model"] for stage, file in files.items()}
    new = ("backbone.extension.", "roi_heads.small_")
    assert not any(key.startswith(new) for key in weights["base"])
    assert {key for key in weights["add_on"] if not key.startswith(new)} == set(weights["base"])
    for before, stage in itertools.pairwise(weights):
        old = weights[before]
        changed = {k for k, v in weights[stage].items() if k not in old or not v.equal(old[k])}
        alone = {"distill": new, "head": new[1:], "add_on": new}.get(stage, ("",))
        assert changed
        assert all(key.startswith(alone) for key in changed), stage


@pytest.mark.fast
def test_the_backbone_trains_by_itself(follow):
    for stage in ("", "distill", "joint", "head"):
        cfg = tiny_config()
        cfg.DISTILL.STAGE = stage
        if stage == "":
            names = follow("A backbone", cfg)
        else:
            cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(fenced("A backbone", "yaml"))))
        model = assert_trains(cfg)
        assert isinstance(model.backbone.bottom_up, names["PlainNet"])
        assert model.backbone.texture == "stem_map"


@pytest.mark.fast
def test_a_routing_rule(follow):
    cfg = tiny_config("COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml")
    names = follow("A routing rule", cfg)
    heads = assert_trains(cfg).roi_heads
    long, wide, large = (torch.tensor([[0.0, 0, *x]]) for x in ((10, 41), (39, 39), (50, 50)))
    assert isinstance(heads.router, names["LongSideRouter"])
    assert [heads._route([Boxes(x)])[0].item() for x in (long, wide, large)] == [False, True, False]

    cfg.MULTI_SCALE_TEST.ROUTE_BY = "object"
    cfg.INPUT.MIN_SIZE_TEST, cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = 64, (128,), False
    model, seen = build_model(cfg).eval(), []
    model.roi_heads.small_box_pooler.register_forward_pre_hook(
        lambda _, args: seen.extend(b.tensor for b in args[1])
    )
    image = (torch.rand(3, 64, 96) * 255).byte()
    with torch.no_grad():
        EFPNWithTTA(cfg, model)([{"image": image, "height": 64, "width": 96}])
    sides = torch.cat(seen)[:, 2:] - torch.cat(seen)[:, :2]
    assert 40 < sides.amax() < 80

    advised = analysis_config()
    advised.MODEL.EFPN.ROUTER, advised.MODEL.EFPN.SMALL_BOX_SIZE = "LongSideRouter", 40.0
    geometry = describe_detector(advised)
    boxes = np.array([[0, 0, 10, 41], [0, 0, 39, 39], [0, 0, 50, 50]], dtype=float)
    assert geometry.assign_levels(boxes).tolist() == [1, 0, 1]
    assert geometry.router.describe() == "with a longer side below 40 px"


@pytest.mark.fast
@pytest.mark.parametrize("preset", ["paper", "slim"])
def test_a_roi_head(follow, preset):
    cfg = tiny_config()
    cfg.MODEL.EFPN.PRESET = preset
    names = follow("A ROI head", cfg)
    heads = assert_trains(cfg).roi_heads
    assert {type(heads.box_head), type(heads.small_box_head)} == {names["MeanBoxHead"]}


@pytest.mark.fast
def test_a_stage(follow):
    cfg = tiny_config()
    follow("A stage", cfg)
    model = assert_trains(cfg)
    trained = {k.split(".")[0] for k, p in model.named_parameters() if p.requires_grad}
    assert trained == {"proposal_generator"}
    assert not model.backbone.training
    cfg.DISTILL.SCHEDULE = [["base", 4, 0.1], ["proposals", 4, 0.1]]
    assert [own.DISTILL.STAGE for own in stage_configs(cfg)] == ["base", "proposals"]


@pytest.mark.fast
def test_paths_and_names_in_the_text_exist():
    root = Path(__file__).resolve().parent.parent
    for path in re.findall(r"`((?:efpn_d2|benchmarks|tools)/[\w/]+\.py)", TEXT):
        assert (root / path).is_file(), path
