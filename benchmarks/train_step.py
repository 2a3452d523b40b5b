#!/usr/bin/env python
"""Time and peak memory of a distillation step against what it cannot do without.

Side by side in one run, interleaved, on one batch of noise: (a) a training step of the plain FPN
detector at 1x; (b) the bare passes of distillation: teacher forward at 2x without autograd, student
forward, extension forward and backward; (c) the distillation step as it is trained. Memory is that
of the CUDA allocator; on the CPU each case runs in a process of its own for it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

import efpn_d2
from efpn_d2.engine import DistillationTrainer
from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.run_record import collect_run_record, peak_memory_gib, write_json
from efpn_d2.tool_support import not_negative, positive

RESULTS = Path(__file__).resolve().parent / "results"
STOCK = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "DISTILL.STAGE", "base"),
]
CASES = ("fpn_step", "bare_passes", "distillation_step")


def make_config(args: argparse.Namespace, *opts: str) -> CfgNode:
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


def make_case(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """A function that does one step of the case."""
    if name == "fpn_step":
        model = DistillationTrainer.build_model(make_config(args, *STOCK)).train()
        batch = make_batch(args.size, args.batch, args.device)
    else:
        cfg = make_config(args, "DISTILL.STAGE", "distill")
        model = DistillationTrainer.build_model(cfg).train()
        batch = make_batch(2 * args.size, args.batch, args.device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def bare_passes() -> dict[str, torch.Tensor]:
        images = torch.stack([x["image"] for x in batch])
        backbone = model.backbone
        with torch.no_grad():
            targets = backbone.teacher_maps(images)
            features = backbone.bottom_up(F.avg_pool2d(images, 2))
            merged = backbone.top_down(features)
        p3_prime, p2_prime = backbone.extend(features, merged)
        boxes = [Boxes(x["instances"].gt_boxes.tensor.to(args.device) / 2) for x in batch]
        losses = {}
        for level, student, stride in (("p3_prime", p3_prime, 4), ("p2_prime", p2_prime, 2)):
            terms = foreground_background_balanced_loss(student, targets[level], boxes, stride)
            losses.update({f"{level}_{k}": v for k, v in terms.items()})
        return losses

    def step() -> None:
        optimizer.zero_grad()
        losses = bare_passes() if name == "bare_passes" else model(batch)
        sum(losses.values()).backward()
        optimizer.step()
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()

    return step


def measure_times(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of each case, the cases taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with EventStorage():
        steps = {name: make_case(name, args) for name in CASES}
        for i in range(args.warmup + args.repeat):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if i >= args.warmup:
                    seconds[name].append(time.perf_counter() - start)
            print(f"round {i + 1} of {args.warmup + args.repeat}", file=sys.stderr)
    return seconds


def measure_memory(name: str, args: argparse.Namespace) -> float:
    """GiB at the peak of two steps of this case, alone in this process."""
    with EventStorage():
        step = make_case(name, args)
        step()
        step()
    return peak_memory_gib(args.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=positive, default=320, help="side of the student's image")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--depth", type=positive, default=18, help="of the ResNet")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--warmup", type=not_negative, default=1)
    parser.add_argument("--repeat", type=positive, default=7)
    parser.add_argument("--memory-of", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(measure_memory(args.memory_of, args))
        return
    rows = {}
    for name, values in measure_times(args).items():
        command = [sys.executable, *sys.argv, "--memory-of", name]
        child = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[name] = {
            "seconds_median": round(statistics.median(values), 4),
            "seconds_min": round(min(values), 4),
            "seconds_max": round(max(values), 4),
            "peak_memory_gib": round(float(child.stdout.split()[-1]), 3),
        }
    reference = {name: rows[name]["seconds_median"] for name in CASES}
    ratios = {
        "distillation_step / fpn_step": reference["distillation_step"] / reference["fpn_step"],
        "distillation_step / bare_passes": reference["distillation_step"]
        / reference["bare_passes"],
    }
    options = {k: v for k, v in vars(args).items() if k != "memory_of"}
    record = {
        **collect_run_record(0),
        "options": options,
        "rows": rows,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
    }
    write_json(RESULTS / f"train_step_{args.device}.json", record)
    print(record["rows"], record["ratios"], sep="\n")


if __name__ == "__main__":
    main()
