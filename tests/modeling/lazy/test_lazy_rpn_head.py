"""The RPN on lazy P'2: as on the dense map where it looks, and nothing elsewhere."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from efpn_d2.modeling.backbone import LazyEFPN
from efpn_d2.modeling.lazy import LazyP2Prime
from efpn_d2.modeling.lazy_rpn_head import LazyRPNHead
from tests.modeling.helpers import tiny_config, training_input

pytestmark = pytest.mark.fast


def build(threshold, *opts, lazy=True):
    cfg = tiny_config()
    cfg.merge_from_list(
        [
            "MODEL.EFPN.RPN_ON_P2_PRIME", True,
            "MODEL.EFPN.LAZY", lazy,
            "MODEL.EFPN.LAZY_TILE_SIDES", [16],
            "MODEL.EFPN.LAZY_DENSE_ABOVE", 1000.0,
            "MODEL.EFPN.LAZY_QUERY_THRESHOLD", threshold,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0,
            *opts,
        ]
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.manual_seed(1)
    with torch.no_grad():  # the head's own start is nearly the same everywhere
        torch.nn.init.normal_(model.proposal_generator.rpn_head.objectness_logits.weight, std=0.5)
    return model


def predictions(model, images):
    """Logits and deltas of all levels, and the map that was given to the head."""
    features = model.backbone(images)
    rpn = model.proposal_generator
    with torch.no_grad():
        return *rpn.rpn_head([features[f] for f in rpn.in_features]), features["p2_prime"]


def make_images():
    return torch.randn(2, 3, 128, 192, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_where_it_looks_the_predictions_are_those_of_the_dense_map():
    images = make_images()
    logits, deltas, _ = predictions(build(0.0, lazy=False), images)
    threshold = float(logits[1].sigmoid().amax(dim=1).quantile(0.98))
    own_logits, own_deltas, lazy = predictions(build(threshold), images)
    assert isinstance(lazy, LazyP2Prime)
    looked = own_logits[0].isfinite()
    assert 0 < lazy.active_share < 1
    assert looked.float().mean() == pytest.approx(lazy.active_share)
    torch.testing.assert_close(own_logits[0][looked], logits[0][looked], rtol=0, atol=1e-4)
    everywhere = looked.any(dim=1, keepdim=True)
    torch.testing.assert_close(
        own_deltas[0], deltas[0].where(everywhere, torch.zeros(())), rtol=0, atol=1e-4
    )
    # All cells of the query that are over the threshold are looked at.
    wanted = logits[1].sigmoid().amax(dim=1) >= threshold
    assert everywhere[:, 0][wanted.repeat_interleave(2, 1).repeat_interleave(2, 2)].all()
    for level in range(1, 6):
        torch.testing.assert_close(own_logits[level], logits[level])


@torch.no_grad()
def test_looking_everywhere_finds_the_same():
    images = [training_input([], size=(96, 160), seed=3)]
    expected, found = (
        model(images)[0]["instances"] for model in (build(0.0, lazy=False), build(1e-12))
    )
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-2
    )


@torch.no_grad()
def test_looking_nowhere_proposes_nothing_from_p2_prime_and_computes_nothing():
    model = build(1.0)
    logits, deltas, lazy = predictions(model, make_images())
    assert (logits[0] == -torch.inf).all()
    assert (deltas[0] == 0).all()
    assert logits[0].shape == (2, 3, 64, 96)
    assert deltas[0].shape == (2, 12, 64, 96)
    assert lazy.active_share == 0
    found = model([training_input([], size=(96, 160))])[0]["instances"]
    assert found.scores.isfinite().all()


@torch.no_grad()
def test_tiles_that_were_scored_are_pooled_from_without_computing_them_again(monkeypatch):
    model = build(1e-12)
    calls = []
    pool = LazyP2Prime.pool

    def record(self, *args):
        calls.append((self.active_share, len(self._rows)))
        result = pool(self, *args)
        calls.append((self.active_share, len(self._rows)))
        return result

    monkeypatch.setattr(LazyP2Prime, "pool", record)
    model([training_input([], size=(96, 160))])
    assert calls[0] == calls[1] == (1.0, 15)  # 3 x 5 tiles of 16 cells


def test_keys_are_those_of_the_stock_head():
    lazy, stock = build(0.5), build(0.0, lazy=False)
    assert isinstance(lazy.proposal_generator.rpn_head, LazyRPNHead)
    assert not isinstance(stock.proposal_generator.rpn_head, LazyRPNHead)
    assert lazy.state_dict().keys() == stock.state_dict().keys()


def test_without_a_threshold_all_of_p2_prime_is_scored(caplog):
    model = build(0.0)
    assert not isinstance(model.backbone, LazyEFPN)
    assert "the RPN reads all of P'2" in caplog.text


def test_a_threshold_that_is_no_objectness_is_refused():
    for threshold in (1.5, -0.5):
        with pytest.raises(ValueError, match=f"LAZY_QUERY_THRESHOLD is {threshold}"):
            build(threshold)


def test_with_the_backbone_alone_in_evaluation_mode_all_of_p2_prime_is_trained_on():
    losses = []
    for lazy in (False, True):
        model = build(0.5 if lazy else 0.0, lazy=lazy).train()
        model.backbone.eval()
        torch.manual_seed(1)
        with EventStorage():
            losses.append(model([training_input([[8, 8, 24, 28]])]))
    assert losses[0].keys() == losses[1].keys()
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=1e-4, atol=1e-5)
