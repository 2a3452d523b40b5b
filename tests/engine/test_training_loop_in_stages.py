"""Mixed precision, accumulation and clipping in every stage, on real files and real detectors."""

import functools
import json
import shutil

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from efpn_d2.engine import DistillationTrainer, EFPNTrainer
from efpn_d2.modeling.stage_table import STAGES
from tests.engine.test_trainer import differences, single_thread  # noqa: F401
from tests.engine.tiny_training import (
    STOCK_OPTS,
    WIDE_ENOUGH_FOR_BF16,
    register,
    tiny_config,
    unregister,
)

PRECISIONS = ("bfloat16", "float16")
ITERATIONS = 4

# Small images, for fp16 has no fast convolutions on the CPU; and samples of every head and level.
SMALL = (
    *("INPUT.MIN_SIZE_TRAIN", "(32,)", "INPUT.MIN_SIZE_TEST", 32),
    *("MODEL.EFPN.SMALL_BOX_SIZE", 8.0, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 512),
)
IN_PARTS = ("TRAINING.ACCUMULATE_GRADIENTS", 2)
CLIPPED = (
    *("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
    *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    register("loop_in_stages_test", tmp_path_factory.mktemp("data"))
    yield "loop_in_stages_test"
    unregister("loop_in_stages_test")


@pytest.fixture(scope="module")
def start(dataset, tmp_path_factory):
    """A file that every stage can start from."""
    path = tmp_path_factory.mktemp("start") / "efpn.pth"
    torch.manual_seed(0)
    torch.save({"model": build_model(tiny_config(dataset, path.parent)).state_dict()}, path)
    return str(path)


@pytest.fixture(autouse=True)
def quick_loss_scale(monkeypatch):
    """A loss scale that fits untrained weights from the first step on, and grows in the test."""
    scaler = functools.partial(torch.amp.GradScaler, init_scale=4.0, growth_interval=3)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


def config(dataset, folder, stage, start, *opts):
    opts = (
        *("DISTILL.STAGE", stage, "MODEL.WEIGHTS", start, "SOLVER.MAX_ITER", ITERATIONS),
        *("SOLVER.CHECKPOINT_PERIOD", 1, *SMALL, *(STOCK_OPTS if stage == "base" else []), *opts),
    )
    return tiny_config(dataset, folder, *opts)


def trainer_of(stage):
    """As train_net.py chooses it."""
    return DistillationTrainer if stage else EFPNTrainer


def train(cfg, *, resume=False):
    trainer = trainer_of(cfg.DISTILL.STAGE)(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def logged(folder):
    lines = (folder / "metrics.json").read_text().splitlines()
    return {k: v for line in lines for k, v in json.loads(line).items()}


def load(path):
    return torch.load(path, map_location="cpu")


def check_a_stage(dataset, folder, stage, start, device, *opts):
    """Train a stage in mixed precision, in parts and clipped; then resume it in the middle."""
    opts = ("MODEL.DEVICE", device, "SOLVER.AMP.ENABLED", True, *IN_PARTS, *CLIPPED, *opts)
    cfg = config(dataset, folder / "whole", stage, start, *opts)
    trainer = train(cfg)
    before, whole = load(start)["model"], load(folder / "whole" / "model_final.pth")
    parameters = dict(trainer.model.named_parameters())
    changed = {k for k in parameters if not torch.equal(before[k], whole["model"][k])}
    assert changed == {k for k, p in parameters.items() if p.requires_grad}
    if stage in ("distill", "head"):
        # Bitwise, buffers included.
        trained = "backbone.extension." if stage == "distill" else "roi_heads.small_"
        same = [k for k, v in whole["model"].items() if torch.equal(before[k], v)]
        assert same == [k for k in whole["model"] if not k.startswith(trained)]
    assert {v.dtype for v in whole["model"].values()} == {torch.float32, torch.int64}
    losses = [v for k, v in logged(folder / "whole").items() if "loss" in k]
    assert len(losses) > 2
    assert torch.isfinite(torch.tensor(losses)).all()

    (folder / "part").mkdir()
    shutil.copy(folder / "whole" / "model_0000001.pth", folder / "part")
    (folder / "part" / "last_checkpoint").write_text("model_0000001.pth")
    cfg.OUTPUT_DIR = str(folder / "part")
    cfg.TEST.EVAL_PERIOD = 3
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 2
    return whole, load(folder / "part" / "model_final.pth")


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        *((stage, "bfloat16") for stage in STAGES),
        ("distill", "float16"),
        # A CPU only emulates fp16 convolutions.
        *(
            pytest.param(stage, "float16", marks=pytest.mark.slow)
            for stage in STAGES
            if stage != "distill"
        ),
    ],
)
def test_a_stage_in_mixed_precision(dataset, start, stage, precision, tmp_path):
    """It trains what it should and nothing else, and resumes bit for bit."""
    wide_enough = WIDE_ENOUGH_FOR_BF16 if precision == "bfloat16" else ()
    opts = ("TRAINING.AMP_PRECISION", precision, *wide_enough)
    whole, resumed = check_a_stage(dataset, tmp_path, stage, start, "cpu", *opts)
    assert differences(whole, resumed) == []
    state = resumed["trainer"]["_trainer"]["grad_scaler"]
    assert state == whole["trainer"]["_trainer"]["grad_scaler"]
    # It grew, once, after three steps without an overflow.
    expected = {} if precision == "bfloat16" else {"scale": 8.0, "_growth_tracker": 1}
    assert {k: state[k] for k in expected} == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_mixed_precision_on_cuda(dataset, start, stage, precision, tmp_path):
    """As above; kernels that add in any order make a resumed training equal to rounding only."""
    opts = ("TRAINING.AMP_PRECISION", precision)
    whole, resumed = check_a_stage(dataset, tmp_path, stage, start, "cuda", *opts)
    scalers = [x["trainer"]["_trainer"]["grad_scaler"] for x in (whole, resumed)]
    assert scalers[0] == scalers[1]
    keys = [k for k in whole["model"] if k.endswith((".weight", ".bias"))]
    first, weights, again = (
        torch.cat([x["model"][k].flatten() for k in keys]) for x in (load(start), whole, resumed)
    )
    assert (weights - again).norm() < 0.5 * (weights - first).norm()


def one_step(trainer):
    """One iteration from a fixed seed; returns the gradients, and the batch it was made of."""
    batch = next(iter(trainer.data_loader))
    trainer._trainer.data_loader = [batch]
    with EventStorage():
        trainer.iter = 0
        torch.manual_seed(3)
        trainer.run_step()
    return gradients(trainer.model), batch


def gradients(model):
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item()
        assert torch.allclose(actual[name], value, rtol=1e-4, atol=2e-5 * scale + 1e-9), name


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_of_a_step_in_parts_are_the_mean_of_the_parts(dataset, start, stage, tmp_path):
    """Against the parts one by one, with nothing but autograd."""
    cfg = config(dataset, tmp_path, stage, start, *IN_PARTS, "SOLVER.IMS_PER_BATCH", 4)
    made = []
    for parts in (2, 1):
        cfg.TRAINING.ACCUMULATE_GRADIENTS = parts
        made.append(trainer_of(stage)(cfg))
        made[-1].resume_or_load(resume=False)
    in_parts, plain = made
    actual, batch = one_step(in_parts)
    torch.manual_seed(3)
    parts = []
    for part in (batch[:2], batch[2:]):
        plain.model.zero_grad()
        with EventStorage():
            sum(plain.model(part).values()).backward()
        parts.append(gradients(plain.model))
    assert_close(actual, {k: (parts[0][k] + parts[1][k]) / 2 for k in parts[0]})


# Without BatchNorm, and with images of one size, so that none is padded.
PER_IMAGE = ("MODEL.RESNETS.NORM", "FrozenBN", "INPUT.CROP.ENABLED", False)


@pytest.mark.parametrize(
    "opts",
    [
        # The RPN divides by the anchors to sample, and here it samples them all.
        ("MODEL.META_ARCHITECTURE", "ProposalNetwork", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10**6),
        ("DISTILL.STAGE", "distill", "DISTILL.POSITIVE_WEIGHT", 0.0),
    ],
    ids=["rpn", "distill"],
)
def test_a_step_in_parts_is_the_step_on_the_whole_batch(dataset, tmp_path, opts):
    """Where losses are means over images."""
    results = []
    for parts in (1, 2, 4):
        cfg = config(
            dataset, tmp_path, "", "", *PER_IMAGE, *opts, "SOLVER.IMS_PER_BATCH", 4,
            "TRAINING.ACCUMULATE_GRADIENTS", parts,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = DistillationTrainer(cfg)
        _tame(trainer.model)
        results.append((one_step(trainer)[0], trainer.model.state_dict()))
    whole, *in_parts = results
    for gradient, state in in_parts:
        assert_close(gradient, whole[0])
        assert all(torch.allclose(v, whole[1][k], rtol=1e-4) for k, v in state.items())


def _tame(model):
    """Keep the maps of a network without normalisation in the range of a trained one's."""
    for name, parameter in model.named_parameters():
        if "bottom_up" in name:
            parameter.data.mul_(0.5)


def test_clipping_bounds_the_update_of_each_parameter(dataset, start, tmp_path):
    """In fp16 and in parts: lr * limit, whatever the loss scale."""
    opts = ("SOLVER.AMP.ENABLED", True, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.WARMUP_FACTOR", 1.0)
    cfg = config(dataset, tmp_path, "head", start, *opts, *IN_PARTS, *CLIPPED)
    trainer = DistillationTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = {k: p.detach().clone() for k, p in trainer.model.named_parameters()}
    one_step(trainer)
    norms = {
        k: (p.detach() - before[k]).norm().item() / cfg.SOLVER.BASE_LR
        for k, p in trainer.model.named_parameters()
        if p.requires_grad
    }
    assert max(norms.values()) == pytest.approx(0.1, rel=1e-3)
    assert all(0 < norm < 0.1001 for norm in norms.values())


def test_parts_scale_with_the_number_of_processes(dataset, tmp_path, monkeypatch):
    """Automatic scaling keeps the images per process, so it divides whenever the config did."""
    opts = ("SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_WORLD_SIZE", 4, *IN_PARTS)
    trainer = EFPNTrainer(config(dataset, tmp_path, "", "", *opts))
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == 2
    assert trainer.max_iter == 4 * ITERATIONS
    assert trainer._trainer.micro_batches == 2
    with pytest.raises(ValueError, match="4 cannot be divided among 1 .* with 3 parts each"):
        opts = ("SOLVER.IMS_PER_BATCH", 4, "TRAINING.ACCUMULATE_GRADIENTS", 3)
        EFPNTrainer(config(dataset, tmp_path, "", "", *opts))
