"""Heads and a whole Mask R-CNN as a script find what they find as modules."""

import pytest
import torch
from detectron2.export.torchscript import scripting_with_instances
from detectron2.export.torchscript_patch import freeze_training_mode, patch_instances
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList
from detectron2.utils.testing import convert_scripted_instances
from torch import Tensor

from efpn_d2.modeling.roi_heads import EFPNROIHeads
from tests.modeling.helpers import tiny_config, training_input
from tests.modeling.roi_heads.test_efpn_roi_heads import (
    MIXED,
    SIZE,
    make_features,
    make_heads,
    make_proposals,
)

MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml"
FIELDS = {
    "proposal_boxes": Boxes,
    "objectness_logits": Tensor,
    "pred_boxes": Boxes,
    "scores": Tensor,
    "pred_classes": Tensor,
    "pred_masks": Tensor,
}


class Derived(EFPNROIHeads):
    """Someone's own."""


def assert_same(expected, scripted, atol):
    found = convert_scripted_instances(scripted)
    assert found.image_size == expected.image_size
    assert found.get_fields().keys() == expected.get_fields().keys()
    for name, value in expected.get_fields().items():
        tensors = (getattr(x, "tensor", x) for x in (found.get(name), value))
        torch.testing.assert_close(*tensors, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("routing", ["reassign", "duplicate", "none"])
@pytest.mark.parametrize("kind", [EFPNROIHeads, Derived])
def test_scripted_heads(kind, routing, mask):
    heads = make_heads(mask=mask, **{"MODEL.EFPN.ROUTING": routing}).eval()
    heads.__class__ = kind
    images = ImageList(torch.zeros(2, 3, *SIZE), [SIZE, SIZE])
    for boxes in (MIXED, [MIXED[0], []], [[], []]):
        expected, _ = heads(images, make_features(), make_proposals(boxes))
        with freeze_training_mode(heads), patch_instances(FIELDS) as scripted_class:
            proposals = [scripted_class.from_instances(x) for x in make_proposals(boxes)]
            scripted = torch.jit.script(heads)
            found, losses = scripted(images, make_features(), proposals)
        assert losses == {}
        for x, y in zip(expected, found, strict=True):
            assert_same(x, y, atol=1e-6)
    assert len(heads(images, make_features(), make_proposals(MIXED))[0][0]) > 0


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), ("MODEL.EFPN.PRESET", "slim"), ("MODEL.EFPN.LAZY", True)])
def test_scripted_mask_rcnn(opts):
    cfg = tiny_config(MASK)
    cfg.merge_from_list(["MODEL.EFPN.SMALL_BOX_SIZE", 24.0, *opts])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    keys = list(model.roi_heads.state_dict())
    scripted = scripting_with_instances(model, FIELDS)
    images = [training_input([], size=size)["image"] for size in ((64, 96), (100, 70))]
    expected = model.inference([{"image": x} for x in images], do_postprocess=False)
    found = scripted.inference([{"image": x} for x in images], do_postprocess=False)
    for x, y in zip(expected, found, strict=True):
        sizes = x.pred_boxes.area().sqrt()
        assert 0 < (sizes < 24).sum() < len(x)
        assert_same(x, y, atol=1e-4)
    assert list(scripted.roi_heads.state_dict()) == keys
