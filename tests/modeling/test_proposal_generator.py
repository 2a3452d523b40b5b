import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN

from efpn_d2.modeling import EFPNRPN
from tests.modeling.helpers import tiny_config, training_input, without_gradient

pytestmark = pytest.mark.fast


def build(**options: object) -> torch.nn.Module:
    cfg = tiny_config()
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    torch.manual_seed(0)
    return build_model(cfg)


def test_off_it_is_the_stock_rpn():
    ours, stock = build(), build(**{"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"})
    stock.load_state_dict(ours.state_dict())
    assert type(ours.proposal_generator) is EFPNRPN
    assert type(stock.proposal_generator) is RPN
    image = [training_input([])]
    with torch.no_grad():
        proposals = []
        for model in (ours.eval(), stock.eval()):
            images = model.preprocess_image(image)
            found, _ = model.proposal_generator(images, model.backbone(images.tensor))
            proposals.append(found[0].proposal_boxes.tensor)
    assert torch.equal(*proposals)


@pytest.mark.parametrize("sizes", [[[32], [64], [128], [256], [512]], [[32]]])
def test_on_p2_prime_adds_one_level_with_its_own_anchors(sizes):
    model = build(
        **{
            "MODEL.EFPN.RPN_ON_P2_PRIME": True,
            "MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": [8],
            "MODEL.ANCHOR_GENERATOR.SIZES": sizes,
        }
    )
    rpn = model.proposal_generator
    assert rpn.in_features == ["p2_prime", "p2", "p3", "p4", "p5", "p6"]
    assert list(rpn.anchor_generator.strides) == [2, 4, 8, 16, 32, 64]
    areas = [anchors.prod(1) for anchors in _sides(rpn.anchor_generator.cell_anchors)]
    assert [round(a[0].item() ** 0.5) for a in areas] == [8] + (
        [s[0] for s in sizes] if len(sizes) > 1 else [32] * 5
    )
    stock_keys = build().proposal_generator.state_dict().keys()
    learned = {k for k in rpn.state_dict() if "anchor_generator" not in k}
    assert learned == {k for k in stock_keys if "anchor_generator" not in k}


def _sides(cell_anchors):
    return [a[:, 2:] - a[:, :2] for a in cell_anchors]


def test_proposals_on_p2_prime_train_the_extension():
    model = build(**{"MODEL.EFPN.RPN_ON_P2_PRIME": True})
    from detectron2.utils.events import EventStorage

    with EventStorage():
        losses = model([training_input([[4, 4, 12, 14]]), training_input([])])
    assert all(torch.isfinite(v) for v in losses.values())
    (losses["loss_rpn_cls"] + losses["loss_rpn_loc"]).backward()
    silent = [k for k in without_gradient(model) if not k.startswith("roi_heads.")]
    assert silent == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": [8, 16]}, "has 2 sizes, but the other levels have 1"),
        ({"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": []}, r"\[\]: it is for a single level"),
        ({"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES": [[16]]}, "without inner brackets"),
        ({"MODEL.RPN.IN_FEATURES": ["p2_prime", "p2"]}, "would add it again"),
    ],
)
def test_another_number_of_anchors_is_one_clear_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        build(**{"MODEL.EFPN.RPN_ON_P2_PRIME": True, **options})
