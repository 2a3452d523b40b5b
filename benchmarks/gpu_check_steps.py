"""The steps of benchmarks/gpu_check.py: each does one thing and returns what it measured."""

import functools
import itertools
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectors import DETECTORS, build_detector, make_run
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from speed import BASELINE, CONFIG, build_parser, inference_in, measure
from timing import summarize, time_in_turns, time_once
from torch import nn
from train_step import damp_residuals, make_batch

import efpn_d2
from efpn_d2.engine import EFPNTrainer
from efpn_d2.engine.training_loop import build_training_loop, training_options
from efpn_d2.run_record import peak_memory_gib

ROOT = Path(__file__).resolve().parents[1]
RECIPES: dict[str, tuple[str, list[Any]]] = {
    "slim": ("COCO-Detection/faster_rcnn_R_50_EFPN_slim_1x.yaml", []),
    "paper": (CONFIG, ["MODEL.EFPN.PRESET", "paper"]),
}
SLIM, PAPER = "EFPN slim + SGDM", "EFPN paper, dense"
TIMED = (
    *(BASELINE, "FPN on the image at twice the side", SLIM),
    *("EFPN paper + SGDM, P'2 in the RPN, dense", PAPER, "EFPN paper, lazy, 10 % active"),
)
COMPILED = (SLIM, PAPER)
GOOD_STEPS, MOST_STEPS = 3, 25  # the loss scale of fp16 halves after each step that overflows
TOLERANCE = 1e-2  # of a map's largest value: convolutions in TF32 round to 1e-3
Result = dict[str, Any]


class Scale(NamedTuple):
    """How large everything is."""

    device: str = "cuda"
    size: int = 800
    """Side of the image in pixels."""
    rounds: int = 12
    warmup: int = 2
    batches: tuple[int, ...] = (1, 8)
    """Images in each run that is timed."""
    images: int = 2
    """In a training batch."""
    backend: str = "inductor"
    """Of torch.compile."""
    opts: tuple[Any, ...] = ()
    """Keys and values to change every config by."""


FULL = Scale()
# CPUs emulate fp16, hundreds of times slower than they compute in fp32.
DRY = Scale(
    size=32,
    rounds=1,
    warmup=0,
    batches=(1, 2),
    images=1,
    opts=(
        *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
        *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
    ),
)


class Step(NamedTuple):
    """One step of the check."""

    name: str
    kind: str
    least: float
    """Seconds that must be left for it to start."""
    most: float
    """Seconds after which it is ended."""
    run: Callable[[], Result]


def make_steps(scale: Scale) -> list[Step]:
    """All steps, in their order."""
    steps = [Step("tests", "tests", 60, 150, functools.partial(run_tests, scale))]
    for recipe, precision in itertools.product(RECIPES, ("float16", "bfloat16")):
        run = functools.partial(train, recipe, precision, scale)
        steps.append(Step(f"train {recipe} {precision}", "train", 15, 60, run))
    for batch, precision in itertools.product(scale.batches, ("float32", "float16")):
        run = functools.partial(time_detectors, batch, precision, scale)
        steps.append(Step(f"speed batch {batch} {precision}", "speed", 30, 90, run))
    for name in COMPILED:
        run = functools.partial(compare_compiled, name, scale)
        steps.append(Step(f"compile {name}", "compile", 40, 100, run))
    return steps


def run_tests(scale: Scale) -> Result:
    """The tests with "cuda" in their names; on a card none may be skipped."""
    files = [x for x in sorted((ROOT / "tests").rglob("test_*.py")) if "cuda" in x.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    summary = last_line(done.stdout) or last_line(done.stderr)
    skipped = scale.device != "cpu" and re.search(r"\d+ skipped", summary)
    if done.returncode or skipped:
        print(done.stdout, done.stderr, sep="\n")
        raise RuntimeError(f"pytest: {summary}")
    return {"summary": summary}


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip("= ")


def training_config(recipe: str, precision: str, scale: Scale) -> CfgNode:
    """A recipe in mixed precision; half of the noise's objects are small to its heads."""
    config, opts = RECIPES[recipe]
    cfg = efpn_d2.get_config(config)
    cfg.merge_from_list([*opts, *scale.opts])
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = scale.device
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 16.0 * scale.size / 800
    cfg.SOLVER.IMS_PER_BATCH = scale.images
    cfg.SOLVER.BASE_LR = 1e-4
    cfg.SOLVER.AMP.ENABLED = True
    cfg.TRAINING.AMP_PRECISION = precision
    return cfg


def train(recipe: str, precision: str, scale: Scale) -> Result:
    """Steps of a training on noise, some of which must have finite gradients everywhere.

    Raises:
        FloatingPointError: a loss is not finite, or too few steps have finite gradients.
        RuntimeError: something that learns has no gradient.
    """
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # as in train_step.py
    cfg = training_config(recipe, precision, scale)
    model = EFPNTrainer.build_model(cfg)
    damp_residuals(model)
    optimizer = EFPNTrainer.build_optimizer(cfg, model)
    batch = make_batch(scale.size, scale.images, scale.device)
    loop = build_training_loop(training_options(cfg), model, itertools.repeat(batch), optimizer)
    seconds, losses, good = [], [], 0
    with EventStorage() as storage:
        while good < GOOD_STEPS:
            if len(losses) == MOST_STEPS:
                raise FloatingPointError(f"{good} of {MOST_STEPS} steps had finite gradients")
            seconds.append(time_once(loop.run_step, scale.device))  # raises if a loss is not finite
            losses.append(storage.latest()["total_loss"][0])
            storage.step()
            good += gradients_are_finite(model)
    return {
        "recipe": recipe,
        "precision": precision,
        "steps": len(losses),
        "overflows": len(losses) - good,
        "losses": [round(float(losses[i]), 3) for i in (0, -1)],
        **zero_gradients(model),
        "step_seconds": round(statistics.median(seconds), 4),
        **memory(scale),
    }


def gradients_are_finite(model: nn.Module) -> bool:
    """Whether all are; each parameter that learns must have one."""
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name, gradient in learning.items() if gradient is None]
    if missing:
        raise RuntimeError(f"{len(missing)} parameters have no gradient, e.g. {missing[0]}")
    return all(bool(gradient.isfinite().all()) for gradient in learning.values())


def zero_gradients(model: nn.Module) -> Result:
    """How many parameters learn, and which have a gradient of zero everywhere, as if underflown."""
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    zero = [name for name, gradient in learning.items() if not gradient.any()]
    return {"parameters": len(learning), "zero_gradients": zero}


def memory(scale: Scale) -> Result:
    """Peak memory, where this process has a card to itself."""
    return {} if scale.device == "cpu" else {"memory_gib": peak_memory_gib(scale.device)}


def time_detectors(batch: int, precision: str, scale: Scale) -> Result:
    """Times of ``TIMED`` as benchmarks/speed.py measures them, as ratios to FPN's."""
    arguments = [
        *("detectors", "--name", "gpu_check", "--device", scale.device, "--precision", precision),
        *("--size", scale.size, "--batch", batch, "--rounds", scale.rounds),
        *("--warmup", scale.warmup, "--only", *TIMED),
        *(["--opts", *scale.opts] if scale.opts else []),
        *(["--memory"] if scale.device != "cpu" else []),
    ]
    args = build_parser().parse_args([str(x) for x in arguments])
    with inference_in(args.precision, args.device):
        rows = measure(args)
    return {"batch": batch, "precision": precision, "rows": rows}


def compare_compiled(name: str, scale: Scale) -> Result:
    """Time of a detector with a compiled extension as a ratio to that without, and its maps.

    Raises:
        ArithmeticError: a map differs by more than ``TOLERANCE``.
    """
    cases: dict[str, Sequence[Any]] = {
        "plain": scale.opts,
        "compiled": [*scale.opts, "MODEL.EFPN.COMPILE", scale.backend],
    }
    detector = DETECTORS[name]
    models = {
        case: build_detector(CONFIG, detector, scale.size, scale.device, opts)
        for case, opts in cases.items()
    }
    models["compiled"].load_state_dict(models["plain"].state_dict())
    images = torch.randn(1, 3, scale.size, scale.size, device=scale.device)
    runs = {case: make_run(model, detector, scale.size) for case, model in models.items()}
    with torch.inference_mode():
        maps: dict[str, dict[str, torch.Tensor]] = {}
        compiling = time_once(
            lambda: maps.update({case: m.backbone(images) for case, m in models.items()}),
            scale.device,
        )
        differences = [
            (own - maps["compiled"][level]).abs().max() / own.abs().max()
            for level, own in maps["plain"].items()
        ]
        difference = torch.stack(differences).max().item()
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"the maps differ by {difference:.2g} of their largest value")
        rows = summarize(time_in_turns(runs, scale.rounds, scale.warmup, scale.device), "plain")
    return {
        "detector": name,
        "backend": scale.backend,
        "first_call_seconds": round(compiling, 1),
        "difference": difference,
        "rows": rows,
    }
