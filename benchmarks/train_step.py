#!/usr/bin/env python
"""Time and peak memory of a distillation step against what it cannot do without.

In turns in one process, on noise: training steps of the plain FPN detector, on the student's image
and on one of twice the side; the bare passes of distillation (teacher forward at 2x without
autograd, student forward, extension forward and backward); the distillation step as it is trained.
All end with a step of the optimizer. With ``--detectors``: training steps of whole detectors by
their own losses, each beside FPN's in the same round.

Peak memory is the CUDA allocator's; on the CPU it is the resident set of a process of its own for
each, beyond what it had before the first step. Writes a record in benchmarks/results.

    benchmarks/train_step.py --size 640 --name train_step/R_50_640_cpu
    benchmarks/train_step.py --detectors --size 640 --name train_step/detectors_R_50_640_cpu
    benchmarks/train_step.py --size 800 --batch 2 --device cuda --name train_step/R_50_800_gpu
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from detectors import DETECTORS
from detectron2.config import CfgNode
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from pyramids import BASELINE
from records import RESULTS
from timing import MEMORY_ENVIRONMENT, summarize, time_in_turns
from torch import nn
from torch.nn import functional as F

import efpn_d2
from efpn_d2.data.student_view import TeacherViewMapper
from efpn_d2.engine import DistillationTrainer
from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling.stock_names import STOCK_FASTER_RCNN
from efpn_d2.utils.run_record import collect_run_record, peak_memory_gib, write_record
from efpn_d2.utils.tool_support import not_negative, positive

STOCK = [x for option in STOCK_FASTER_RCNN.items() for x in option] + ["DISTILL.STAGE", "base"]
FPN, FPN_2X = "FPN at 1x", "FPN at 2x"
BARE, DISTILL = "bare passes of distillation", "distillation step"
CASES = (FPN, FPN_2X, BARE, DISTILL)
DETECTOR_CASES = (
    BASELINE,
    "FPN on the image at twice the side",
    "EFPN slim + SGDM",
    "EFPN slim, P'2 alone",
    "EFPN slim, P'2 alone, of 64 channels",
    "EFPN paper + SGDM, P'2 in the RPN, dense",
)


def make_config(args: argparse.Namespace, *opts: Any) -> CfgNode:
    cfg = efpn_d2.get_config("COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = args.device
    if args.depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.DEPTH = args.depth
    cfg.MODEL.EFPN.PRESET = args.preset
    cfg.merge_from_list(list(opts))
    return cfg


def make_batch(side: int, count: int, device: str) -> list[dict]:
    """Noise, with 20 objects of 4 to 64 px of an image of 800 px side."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for _ in range(count):
        corners = torch.rand(20, 2, generator=generator) * side * 0.9
        sides = (4 * 16 ** torch.rand(20, 1, generator=generator)) * side / 800
        instances = Instances((side, side))
        instances.gt_boxes = Boxes(torch.cat([corners, corners + sides], dim=1).clamp(max=side))
        instances.gt_classes = torch.zeros(20, dtype=torch.int64)
        image = torch.rand(3, side, side, generator=generator) * 255
        batch.append({"image": image.to(device), "instances": instances})
    return batch


@torch.no_grad()
def damp_residuals(model: nn.Module) -> None:
    """Keep random residual blocks from multiplying what they get, as pretrained ones do not."""
    for block in model.modules():
        if isinstance(block, (BasicBlock, BottleneckBlock)):
            last = block.conv3 if hasattr(block, "conv3") else block.conv2
            last.norm.weight.mul_(0.1)


def case_options(name: str) -> tuple[list[Any], float]:
    """Keys and values of a case, and the side of its image as a multiple of the student's."""
    if name in DETECTORS:
        return [*DETECTORS[name].options, "DISTILL.STAGE", "finetune"], DETECTORS[name].scale
    options = STOCK if name in (FPN, FPN_2X) else ["DISTILL.STAGE", "distill"]
    return options, 1 if name == FPN else 2


def make_case(name: str, args: argparse.Namespace) -> tuple[nn.Module, Callable[[], None]]:
    """The model of a case, and a function that does one step of its training."""
    options, scale = case_options(name)
    model = DistillationTrainer.build_model(make_config(args, *options)).train()
    damp_residuals(model)
    side = round(scale * args.size)
    batch = make_batch(side, args.batch, args.device)
    if name == DISTILL:
        batch = [TeacherViewMapper(dict)(sample) for sample in batch]
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-4, momentum=0.9)

    def bare_passes() -> dict[str, torch.Tensor]:
        images = torch.stack([x["image"] for x in batch])
        backbone = model.backbone
        with torch.no_grad():
            targets = backbone.teacher_maps(images)
            features = backbone.bottom_up(F.avg_pool2d(images, 2))
            merged = backbone.top_down(features)
        maps = backbone.extend(features, merged)
        boxes = [Boxes(x["instances"].gt_boxes.tensor.to(args.device) / 2) for x in batch]
        losses = {}
        for level, stride in (("p3_prime", 4), ("p2_prime", 2)):
            terms = foreground_background_balanced_loss(maps[level], targets[level], boxes, stride)
            losses.update({f"{level}_{k}": v for k, v in terms.items()})
        return losses

    def step() -> None:
        optimizer.zero_grad()
        losses = bare_passes() if name == BARE else model(batch)
        sum(losses.values()).backward()
        optimizer.step()

    return model, step


def print_memory(args: argparse.Namespace) -> None:
    """GiB that two steps of one case need beyond its model; for a process of its own."""
    with EventStorage():
        _, step = make_case(args.memory_of, args)
        before = peak_memory_gib(args.device)
        step()
        step()  # the first one has no momentum and no gradients yet
    print(round(peak_memory_gib(args.device) - before, 3))


def measure_memory(name: str) -> float:
    command = [sys.executable, *sys.argv, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1])


def measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each case memory and times: of detectors as ratios to FPN's, else to the bare passes'."""
    with EventStorage():
        names = DETECTOR_CASES if args.detectors else CASES
        steps = {name: make_case(name, args)[1] for name in names}
        seconds = time_in_turns(steps, args.rounds, args.warmup, args.device)
    rows = summarize(seconds, BASELINE if args.detectors else BARE)
    of_fpn = {} if args.detectors else summarize(seconds, FPN)
    for name, row in rows.items():
        if name in of_fpn:
            row["ratio_to_fpn"] = of_fpn[name]["ratio"]
        row["memory_gib"] = measure_memory(name)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detectors", action="store_true", help="steps of whole detectors")
    parser.add_argument("--size", type=positive, default=320, help="side of the student's image")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--depth", type=positive, default=50, help="of the ResNet")
    parser.add_argument("--preset", default="paper", help="not of --detectors")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--warmup", type=not_negative, default=1, help="rounds that do not count")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--name", required=True, help="of the record in benchmarks/results")
    parser.add_argument("--memory-of", choices=(*CASES, *DETECTOR_CASES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.manual_seed(0)
    # Class scores of random weights are extreme, and CPUs slow on probabilities that underflow.
    torch.set_flush_denormal(True)
    if args.memory_of:
        print_memory(args)
        return
    rows = measure(args)
    for name, row in rows.items():
        print(f"{name:>40}: {row['seconds']:.3f} s, {row['ratio']:.3f} x, {row['memory_gib']} GiB")
    names = ("size", "batch", "depth", "preset", "device", "rounds")
    setup = {name: getattr(args, name) for name in names}
    if args.detectors:
        del setup["preset"]  # each has its own
    setup["threads"] = torch.get_num_threads()
    setup["environment"] = {k: v for k, v in os.environ.items() if k.startswith(MEMORY_ENVIRONMENT)}
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup, "rows": rows})


if __name__ == "__main__":
    main()
