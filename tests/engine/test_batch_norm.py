"""When processes share the statistics of batch normalisation; what they then share: test_ddp.py."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from efpn_d2.engine import EFPNTrainer, batch_norm
from tests.engine.tiny_training import register, tiny_config, unregister

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("checkpoint_period", "eval_period", "expected"),
    [(3, 4, [3, 4, 6, 8, 9, 10]), (5, 0, [5, 10]), (20, 0, [10])],
)
def test_before_each_checkpoint_and_evaluation(
    checkpoint_period, eval_period, expected, monkeypatch
):
    shared = []
    hook = batch_norm.ShareBatchNorm(checkpoint_period, eval_period)
    hook.trainer = SimpleNamespace(model=None, max_iter=10)
    monkeypatch.setattr(
        batch_norm, "share_batch_norm", lambda _: shared.append(hook.trainer.iter + 1)
    )
    for hook.trainer.iter in range(10):
        hook.after_step()
    assert shared == expected


def test_a_trainer_shares_before_it_writes_and_evaluates(tmp_path):
    register("batch_norm_test", tmp_path / "data")
    trainer = EFPNTrainer(tiny_config("batch_norm_test", tmp_path, "SOLVER.CHECKPOINT_PERIOD", 7))
    unregister("batch_norm_test")
    names = [type(hook).__name__ for hook in trainer._hooks]
    share = names.index("ShareBatchNorm")
    assert share < min(names.index("PeriodicCheckpointer"), names.index("EvalHook"))
    assert trainer._hooks[share]._periods == [7]


def test_one_process_keeps_its_own():
    norm = nn.BatchNorm2d(2)
    norm(torch.randn(2, 2, 3, 3))
    before = norm.running_mean.clone()
    batch_norm.share_batch_norm(norm)
    assert torch.equal(norm.running_mean, before)
