"""DCLoss in a training: its state in the checkpoint, resumed, and moved by each part of a batch."""

import pytest

from tests.engine.test_trainer import ITERATIONS, config, differences, single_thread, train  # noqa: F401
from tests.engine.tiny_training import register, unregister

IN_PARTS = ("TRAINING.ACCUMULATE_GRADIENTS", 2)
MODELS = {
    "faster": (),
    "without_p2_prime": (
        *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
        *("MODEL.EFPN.ROUTING", "none"),
    ),
    "in_parts_bf16": (*IN_PARTS, "SOLVER.AMP.ENABLED", True, "TRAINING.AMP_PRECISION", "bfloat16"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("dcloss_test", tmp_path_factory.mktemp("data"))
    yield "dcloss_test"
    unregister("dcloss_test")


@pytest.mark.parametrize("model", MODELS)
def test_resumed_equals_uninterrupted(dataset, tmp_path, model):
    balanced = ("MODEL.EFPN_BS.DCLOSS_ENABLED", True, "MODEL.EFPN_BS.DCLOSS_ALPHA", 1.0)
    opts = (*MODELS[model], *balanced)
    whole = train(config(dataset, tmp_path / "whole", *opts))
    cfg = config(dataset, tmp_path / "part", *opts)
    train(cfg, interrupt=True)
    resumed = train(cfg, resume=True)
    assert differences(resumed, whole) == []
    state = {k: v for k, v in resumed["model"].items() if "gradient_balance" in k}
    parts = 2 if "in_parts" in model else 1
    updates = state["proposal_generator.gradient_balance.cls.updates"]
    assert ITERATIONS * (parts - 1) < updates.max() <= ITERATIONS * parts
    assert state["roi_heads.box_predictor.gradient_balance.cls.gradient_norms"].max() > 0
