import re

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from efpn_d2.engine import EFPNTrainer
from tests.engine.tiny_training import STOCK_OPTS, register, tiny_config, unregister

ITERATIONS = 6


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("trainer_test", tmp_path_factory.mktemp("data"))
    yield "trainer_test"
    unregister("trainer_test")


class Interrupt(HookBase):
    """Stop the training before the first checkpoint's successor is complete."""

    def after_step(self):
        if self.trainer.iter == 3:
            raise KeyboardInterrupt


def config(dataset, output_dir, *opts):
    opts = ("SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 3, *opts)
    return tiny_config(dataset, output_dir, *opts)


def train(cfg, *, resume=False, interrupt=False):
    """Train, after disturbing every random generator; returns all that the last file holds."""
    trainer = EFPNTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if not resume:
        # The first weights are the only thing that the resumed training must be given.
        torch.manual_seed(0)
        for parameter in trainer.model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    seed_all_rng(None)
    if interrupt:
        trainer.register_hooks([Interrupt()])
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        return None
    trainer.train()
    return torch.load(trainer.checkpointer.get_checkpoint_file())


def leaves(tree, path=""):
    """All tensors and numbers of a checkpoint, by their place in it."""
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in leaves(tree[key], f"{path}/{key}").items()}
    if isinstance(tree, list | tuple):
        return leaves(dict(enumerate(tree)), path)
    return {path: torch.as_tensor(tree) if isinstance(tree, int | float) else tree}


def differences(a, b):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    tensors = [k for k in a if isinstance(a[k], torch.Tensor)]
    assert any("model/" in k for k in tensors)
    assert any("optimizer/state" in k for k in tensors)
    return [k for k in tensors if not torch.equal(a[k], b[k])]


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    return {
        model: train(config(dataset, tmp_path_factory.mktemp(model), *opts))
        for model, opts in (("stock", STOCK_OPTS), ("efpn", []))
    }


@pytest.mark.parametrize(
    ("model", "num_workers", "eval_period"), [("stock", 0, 0), ("stock", 2, 2), ("efpn", 2, 2)]
)
def test_resumed_equals_uninterrupted(
    dataset, tmp_path, uninterrupted, model, num_workers, eval_period
):
    """Weights, BatchNorm statistics, momentum and schedule, whatever ran in between."""
    cfg = config(dataset, tmp_path, *(STOCK_OPTS if model == "stock" else []))
    cfg.DATALOADER.NUM_WORKERS = num_workers
    cfg.TEST.EVAL_PERIOD = eval_period
    train(cfg, interrupt=True)
    assert differences(train(cfg, resume=True), uninterrupted[model]) == []


def test_resumed_keeps_a_seed_that_was_drawn(dataset, tmp_path):
    """Without a configured seed, the checkpoint has it."""
    cfg = config(dataset, tmp_path / "whole", *STOCK_OPTS)
    cfg.SEED = -1
    whole = train(cfg)
    part = torch.load(tmp_path / "whole" / "model_0000002.pth")
    (tmp_path / "part").mkdir()
    torch.save(part, tmp_path / "part" / "model_0000002.pth")
    (tmp_path / "part" / "last_checkpoint").write_text("model_0000002.pth")
    cfg.OUTPUT_DIR = str(tmp_path / "part")
    assert differences(train(cfg, resume=True), whole) == []


def test_another_seed_is_another_training(dataset, tmp_path, uninterrupted):
    """So that the comparisons above can fail."""
    cfg = config(dataset, tmp_path, *STOCK_OPTS, "SEED", 6)
    assert "/model/roi_heads.box_head.fc1.weight" in differences(train(cfg), uninterrupted["stock"])


def test_resuming_with_another_stream_is_said(dataset, tmp_path, caplog):
    train(config(dataset, tmp_path, *STOCK_OPTS), interrupt=True)
    cfg = config(dataset, tmp_path, *STOCK_OPTS, "SOLVER.IMS_PER_BATCH", 3)
    trainer = EFPNTrainer(cfg)
    caplog.clear()
    trainer.resume_or_load(resume=True)
    assert "data stream (images per process 2 -> 3)" in caplog.text


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """The folder of a training of two iterations."""
    folder = tmp_path_factory.mktemp("finished")
    train(config(dataset, folder, "SOLVER.MAX_ITER", 2))
    return folder


def resumed(dataset, folder, *opts):
    trainer = EFPNTrainer(config(dataset, folder, *opts))
    trainer.resume_or_load(resume=True)
    return trainer


def test_what_resumes_otherwise_than_the_config_has_it_is_said(dataset, finished, caplog):
    resumed(dataset, finished)
    assert "resumes with" not in caplog.text
    resumed(
        dataset, finished, "SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY", 0.25,
        "SOLVER.MOMENTUM", 0.75,
    )  # fmt: skip
    for key, value in (("BASE_LR", 0.5), ("WEIGHT_DECAY", 0.25), ("MOMENTUM", 0.75)):
        assert len(re.findall(rf"SOLVER.{key} is {value} .* resumes with", caplog.text)) == 1


def test_a_training_that_is_finished_says_so(dataset, finished, caplog):
    resumed(dataset, finished, "SOLVER.MAX_ITER", 2)
    assert "has 2 iterations, and SOLVER.MAX_ITER is 2" in caplog.text


@pytest.mark.parametrize(
    ("opts", "what"),
    [
        (("MODEL.ROI_HEADS.NUM_CLASSES", 5), "tensors differ, such as roi_heads.box_predictor"),
        (("MODEL.SGDM.AFTER_STAGES", ["res3"]), "such as backbone.bottom_up.res3"),
        (("MODEL.BACKBONE.FREEZE_AT", 3), "other parameters are frozen"),
    ],
)
def test_another_detector_is_not_resumed(dataset, finished, opts, what):
    with pytest.raises(ValueError, match=f"model_final.pth' is of another detector.*{what}"):
        resumed(dataset, finished, *opts)


def test_precise_statistics_are_refused_where_stage_2_runs_twice(dataset, tmp_path):
    opts = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    with pytest.raises(ValueError, match="PRECISE_BN.ENABLED.*MODEL.EFPN.PRESET slim"):
        EFPNTrainer(config(dataset, tmp_path, *opts))
    slim = ("MODEL.EFPN.PRESET", "slim", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())
    trainer = EFPNTrainer(config(dataset, tmp_path, *opts, *slim))
    trainer.resume_or_load(resume=False)
    trainer.train()


def test_core_sampler_trains_too(dataset, tmp_path):
    cfg = config(dataset, tmp_path, *STOCK_OPTS, "SOLVER.MAX_ITER", 1)
    cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    state = train(cfg)
    assert state["trainer"]["hooks"]["ResumeHook"]["stream"] == {}


def test_training_evaluates_by_size(dataset, tmp_path):
    cfg = config(dataset, tmp_path, "SOLVER.MAX_ITER", 1)
    trainer = EFPNTrainer(cfg)
    trainer.train()
    results = trainer._last_eval_results["bbox"]
    assert results["objects_0_16"] + results["objects_16_inf"] == 16
