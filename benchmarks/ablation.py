#!/usr/bin/env python
"""Train the rows of the ablation on the synthetic set, with equal total iterations and data.

Every row of a (variant, seed) has the same sum of iterations; the base is trained once and shared.
Finished runs are skipped and interrupted ones resumed, so the whole can be done in pieces:

    benchmarks/ablation.py --rows fpn_1x efpn --variants native1x --seeds 0

Each finished run is one JSON in benchmarks/results/ablation/.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

import efpn_d2
from efpn_d2.data.datasets import register_datasets
from efpn_d2.data.datasets.synthetic import SyntheticConfig, generate_synthetic
from efpn_d2.engine.stages import run_stages
from efpn_d2.run_record import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "ablation"
CONFIG = "Synthetic/ablation_small_R_18_EFPN.yaml"
BINS = (0.0, 8.0, 16.0, 32.0)  # student pixels

# Of each row: its stages after the shared base, or ("base",) for one long base; and its options.
# A row of one stage after the base trains it for as long as others train two.
ROWS: dict[str, tuple[tuple[str, ...], list[Any]]] = {
    "fpn_1x": (("base",), []),
    "fpn_2x": (("base",), ["SCALE", 2]),
    "efpn": (("distill", "head"), []),
    "efpn_without_distillation": (("finetune",), []),
    "espcn": (("distill", "head"), ["MODEL.EFPN.UPSAMPLER", "espcn"]),
    "espcn_without_distillation": (("finetune",), ["MODEL.EFPN.UPSAMPLER", "espcn"]),
    "joint": (("joint",), []),
    "nearest": (("distill", "head"), ["MODEL.EFPN.UPSAMPLER", "nearest"]),
    "p2_only_global": (
        ("distill", "head"),
        ["DISTILL.LEVELS", ["p2_prime"], "DISTILL.POSITIVE_WEIGHT", 0.0],
    ),
    "p2_only_balanced": (("distill", "head"), ["DISTILL.LEVELS", ["p2_prime"]]),
    "lambda_0.5": (("distill", "head"), ["DISTILL.POSITIVE_WEIGHT", 0.5]),
    "lambda_1.5": (("distill", "head"), ["DISTILL.POSITIVE_WEIGHT", 1.5]),
    "efpn_unfrozen_extension": (("distill", "head"), ["DISTILL.UNFREEZE_EXTENSION", True]),
}


def make_config(args: argparse.Namespace, variant: str, seed: int, name: str) -> CfgNode:
    """What all rows of a variant and seed have in common; ``name`` is the output's folder."""
    cfg = efpn_d2.get_config(CONFIG)
    cfg.MODEL.DEVICE = args.device
    cfg.SEED = seed
    cfg.DATASETS.TRAIN = (f"synthetic_signs_{variant}_train",)
    cfg.DATASETS.TEST = (f"synthetic_signs_{variant}_val",)
    # Annotations are in pixels of the files, the bins in pixels of the student.
    cfg.EVALUATION.SIZE_BINS = [edge * (2 if variant == "native2x" else 1) for edge in BINS]
    if variant == "native1x":
        cfg.DISTILL.VIEW = "upsample"
    for entry in cfg.DISTILL.SCHEDULE:
        entry[1] = max(int(entry[1] * args.iterations_scale), 2)
    cfg.OUTPUT_DIR = str(args.output / variant / f"seed{seed}" / name)
    return cfg


def train_base(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """The base that the rows of this variant and seed share."""
    cfg = make_config(args, variant, seed, "shared")
    cfg.DISTILL.SCHEDULE = cfg.DISTILL.SCHEDULE[:1]
    register_datasets(cfg)
    return run_stages(cfg)[0]


def row_config(args: argparse.Namespace, variant: str, seed: int, row: str) -> CfgNode:
    """The config of what a row trains: all of it, or what comes after the shared base."""
    stages, options = ROWS[row]
    cfg = make_config(args, variant, seed, row)
    base, distill, head = cfg.DISTILL.SCHEDULE
    if stages == ("base",):
        cfg.DISTILL.SCHEDULE = [["base", base[1] + distill[1] + head[1], base[2]]]
    elif len(stages) == 1:
        cfg.DISTILL.SCHEDULE = [[stages[0], distill[1] + head[1], head[2]]]
    else:
        cfg.DISTILL.SCHEDULE = [distill, head]
    if stages != ("base",):
        shared = make_config(args, variant, seed, "shared").OUTPUT_DIR
        cfg.MODEL.WEIGHTS = str(Path(shared, "base", "model_final.pth"))
    _apply_options(cfg, options)
    return cfg


def _apply_options(cfg: CfgNode, options: list[Any]) -> None:
    options = list(options)
    if "SCALE" in options:
        i = options.index("SCALE")
        scale = options[i + 1]
        del options[i : i + 2]
        cfg.INPUT.MIN_SIZE_TRAIN = tuple(scale * size for size in cfg.INPUT.MIN_SIZE_TRAIN)
        cfg.INPUT.MIN_SIZE_TEST *= scale
    cfg.merge_from_list(options)


def run_row(args: argparse.Namespace, variant: str, seed: int, row: str) -> None:
    """Train one row and write its JSON."""
    result = RESULTS / f"{args.protocol}_{row}_{variant}_seed{seed}.json"
    if result.exists():
        print(f"{result.stem} is finished.")
        return
    cfg = row_config(args, variant, seed, row)
    records = [] if ROWS[row][0] == ("base",) else [train_base(args, variant, seed)]
    register_datasets(cfg)
    records += run_stages(cfg)
    identity = {"protocol": args.protocol, "row": row, "variant": variant, "seed": seed}
    stages = [
        {key: record[key] for key in ("stage", "seconds", "peak_memory_gib", "metrics")}
        for record in records
    ]
    last = {k: v for k, v in records[-1].items() if k not in stages[-1] or k == "metrics"}
    write_json(result, {**identity, **last, "stages": stages})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--variants", nargs="+", default=["native1x", "native2x"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--protocol", default="small", help="prefix of the result files")
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--val-images", type=int, default=300)
    parser.add_argument("--iterations-scale", type=float, default=1.0, help="for dry runs")
    args = parser.parse_args()
    os.environ["DETECTRON2_DATASETS"] = str((args.output / "datasets").resolve())
    for logger in ("detectron2", "fvcore", "efpn_d2"):
        setup_logger(str(args.output), name=logger)
    for variant in args.variants:
        for split, count in (("train", args.train_images), ("val", args.val_images)):
            generate_synthetic(
                SyntheticConfig(
                    variant=variant, split=split, num_images=count, student_size=96, max_size=48.0
                )
            )
        for seed in args.seeds:
            for row in args.rows:
                run_row(args, variant, seed, row)


if __name__ == "__main__":
    main()
