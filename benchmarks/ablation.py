#!/usr/bin/env python
"""Train the rows of the ablation on the synthetic set, with equal total iterations and data.

Every row of a (variant, seed) has the same sum of iterations; the base is trained once and shared.
Finished runs are skipped and interrupted ones resumed, so the whole can be done in pieces:

    benchmarks/ablation.py --rows fpn_1x efpn --variants native1x --seeds 0

Each finished run is one JSON in benchmarks/results/ablation/; benchmarks/render.py writes
benchmarks/RESULTS.md from them.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import probes  # noqa: F401  registers the pyramids of rows that are only evaluated
import slices  # noqa: F401  registers the detector of one more
from ablation_rows import ROWS, pixels_per_student_pixel, row_config
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from pycocotools.coco import COCO
from records import ABLATION
from row_spec import PROTOCOLS, VARIANTS, Protocol
from torch import nn

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.datasets import register_datasets
from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic
from efpn_d2.engine import DistillationTrainer, run_and_leave
from efpn_d2.engine.stages import run_stages
from efpn_d2.evaluation.size_bins import SizeBin, evaluate_size_bins
from efpn_d2.modeling.freezing import freeze_all_but
from efpn_d2.utils.run_record import collect_run_record, peak_memory_gib, write_record
from efpn_d2.utils.tool_support import not_negative, positive

SMALL = 16.0  # student pixels: the objects that the claim is about


class Study:
    """One variant and seed of a protocol: what its rows share."""

    def __init__(self, args: argparse.Namespace, variant: str, seed: int) -> None:
        self.args = args
        self.protocol: Protocol = PROTOCOLS[args.protocol]
        self.variant = variant
        self.seed = seed
        self.folder: Path = args.output / args.protocol / variant / f"seed{seed}"

    def run(self, row_name: str, with_weights: bool = False) -> dict[str, Any]:
        """Train or evaluate a row, and what it starts from, unless its JSON is there already.

        Args:
            row_name: one of ``ROWS``.
            with_weights: train it again if its weights are gone; its JSON stays.
        """
        name = f"{self.args.protocol}_{row_name}_{self.variant}_seed{self.seed}.json"
        result = self.args.results / name
        have_weights = not with_weights or Path(self.weights(row_name)).exists()
        if result.exists() and have_weights:
            return json.loads(result.read_text())
        row = ROWS[row_name]
        before = self.run(row.start, with_weights=True)["stages"] if row.start else []
        if row.teacher:
            self.run(row.teacher, with_weights=True)
        weights = {name: self.weights(name) for name in (row.start, row.teacher) if name}
        cfg = self.own(row_config(row, self.protocol, self.variant, self.seed, weights), row_name)
        register_datasets(cfg)
        trainer_class = HeadsTrainer if row.frozen_backbone else DistillationTrainer
        records = run_stages(cfg, trainer_class) if row.stages else [evaluate(cfg)]
        stages = [*before, *(summary(record, cfg) for record in records)]
        identity = {
            "protocol": self.args.protocol,
            "row": row_name,
            "variant": self.variant,
            "seed": self.seed,
        }
        if comm.is_main_process() and not result.exists():
            by_size = self.by_size(cfg)
            write_record(result, {**identity, **records[-1], "by_size": by_size, "stages": stages})
        comm.synchronize()
        return json.loads(result.read_text())

    def weights(self, row_name: str) -> str:
        """Path of a finished row's weights."""
        stage, _ = ROWS[row_name].stages[-1]
        return str(self.folder / row_name / stage / "model_final.pth")

    def own(self, cfg: CfgNode, row_name: str) -> CfgNode:
        """``cfg`` with this study's device, folder and length."""
        cfg.MODEL.DEVICE = self.args.device
        cfg.OUTPUT_DIR = str(self.folder / row_name)
        for entry in cfg.DISTILL.SCHEDULE:
            entry[1] = max(int(entry[1] * self.args.iterations_scale), 2)
        return cfg

    def by_size(self, cfg: CfgNode) -> dict[str, float]:
        """AP, AP50 and AR of the last evaluation by size in student pixels, small ones together."""
        folders = [cfg.OUTPUT_DIR, *(Path(cfg.OUTPUT_DIR, s) for s, _, _ in cfg.DISTILL.SCHEDULE)]
        predictions = Path(folders[-1], "inference", "coco_instances_results.json")
        truth = COCO(MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file)
        found = truth.loadRes(str(predictions)) if json.loads(predictions.read_text()) else None
        edges = self.protocol.size_bins
        pairs = [(0.0, SMALL), *zip(edges, (*edges[1:], float("inf")), strict=True)]
        factor = pixels_per_student_pixel(self.variant)
        result = {}
        for low, high in pairs:
            scaled = SizeBin(low * factor, high * factor)
            metrics = evaluate_size_bins(truth, found, "bbox", [scaled])
            label = SizeBin(low, high).label
            result.update({k.replace(scaled.label, label): v for k, v in metrics.items()})
        return result


class HeadsTrainer(DistillationTrainer):
    """Trains RPN and heads on frozen maps, as a measure of what the maps contain."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The detector with a frozen backbone."""
        model = super().build_model(cfg)
        freeze_all_but(model, ("proposal_generator.", "roi_heads."))
        return model


def evaluate(cfg: CfgNode) -> dict[str, Any]:
    """The record of a row without training."""
    seed_all_rng(cfg.SEED)
    start = time.perf_counter()
    model = DistillationTrainer.build_model(cfg)
    EFPNCheckpointer(model, init_from_stock=cfg.MODEL.EFPN.INIT_FROM_STOCK).load(cfg.MODEL.WEIGHTS)
    metrics = DistillationTrainer.test(cfg, model)
    return {
        **collect_run_record(cfg.SEED),
        "stage": "evaluate",
        "config": cfg.dump(),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gib": peak_memory_gib(cfg.MODEL.DEVICE),
        "metrics": metrics,
    }


def summary(record: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """What a row's JSON keeps of each stage, with the curve of its evaluations."""
    keys = ("stage", "seconds", "peak_memory_gib", "metrics")
    lengths = {stage: iterations for stage, iterations, _ in cfg.DISTILL.SCHEDULE}
    return {
        **{key: record[key] for key in keys},
        "iterations": lengths.get(record["stage"], 0),
        "curve": evaluation_curve(Path(cfg.OUTPUT_DIR, record["stage"], "metrics.json")),
    }


def evaluation_curve(metrics_file: Path) -> list[dict[str, float]]:
    """Iterations done and AP by size, from Detectron2's log of a training."""
    if not metrics_file.exists():
        return []
    points = {}
    for line in metrics_file.read_text().splitlines():
        entry = json.loads(line)
        own = {k.removeprefix("bbox/"): v for k, v in entry.items() if k.startswith("bbox/AP")}
        if own:
            chosen = {k: round(v, 3) for k, v in own.items() if k == "AP" or k.startswith("AP_")}
            # A resumed training repeats some iterations.
            points[entry["iteration"]] = {"iterations": entry["iteration"] + 1, **chosen}
    return [points[i] for i in sorted(points)]


def generate(args: argparse.Namespace) -> None:
    """The data sets, unless they are there."""
    protocol = PROTOCOLS[args.protocol]
    for variant in args.variants:
        for split, count in (
            ("train", args.train_images or protocol.train_images),
            ("val", args.val_images or protocol.val_images),
        ):
            generate_synthetic(
                SyntheticConfig(
                    variant=variant,
                    split=split,
                    num_images=count,
                    student_size=protocol.student_size,
                    max_size=protocol.max_object_size,
                )
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=not_negative, default=[0, 1, 2])
    parser.add_argument("--protocol", default="tiny", choices=PROTOCOLS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        help="of one training; batches are divided among them",
    )
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    parser.add_argument("--results", type=Path, default=ABLATION, help="folder of the JSON files")
    dry = parser.add_argument_group("for dry runs, with --results elsewhere")
    dry.add_argument("--train-images", type=not_negative, default=0)
    dry.add_argument("--val-images", type=not_negative, default=0)
    dry.add_argument("--iterations-scale", type=float, default=1.0)
    args = parser.parse_args()
    if args.results == ABLATION and (args.train_images or args.val_images):
        parser.error("--train-images and --val-images change the protocol: give --results too.")
    datasets = args.output / args.protocol / "datasets"
    os.environ["DETECTRON2_DATASETS"] = str(datasets.resolve())
    generate(args)
    launch(run_and_leave, args.processes, dist_url="auto", args=(run_all, args))


def run_all(args: argparse.Namespace) -> None:
    """Run in every process of the trainings."""
    for logger in ("detectron2", "fvcore", "efpn_d2"):
        setup_logger(str(args.output), comm.get_rank(), name=logger)
    for variant in args.variants:
        for seed in args.seeds:
            for row in args.rows:
                Study(args, variant, seed).run(row)


if __name__ == "__main__":
    main()
