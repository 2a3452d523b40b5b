#!/usr/bin/env python
"""Do P5 and P6 learn from tiny objects, and what does CEM change about that?

Training passes without a step of the optimizer: which level the sampled anchors, the positive ones
among them and the pooled boxes (RoIs) belong to, and the gradient norm at each finished map, at its
output convolution and at its lateral one. Stock FPN and the same with CEM get equal weights, images
and random numbers, so they sample the same anchors. CEM's own weights are new, but where both were
trained further; that is done equally long, from the same weights.

The base is trained on the protocol's set first, unless its file is given; benchmarks/ablation.py
leaves one in output/ablation/small/native1x/seed0/base/base/model_final.pth:

    benchmarks/level_gradients.py --weights FILE

Sets of smaller objects are only measured on. Writes benchmarks/results/level_gradients.json, from
which benchmarks/render.py makes the tables of docs/paper_mapping.md.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ablation_rows import base_config, lengths
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from level_log import measure, summarize
from records import RESULTS
from row_spec import PROTOCOLS

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.datasets import register_datasets
from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic, synthetic_paths
from efpn_d2.engine import DistillationTrainer
from efpn_d2.engine.stages import run_stages, stage_configs
from efpn_d2.utils.run_record import collect_run_record, timed, write_record
from efpn_d2.utils.tool_support import not_negative, positive

VARIANT = "native1x"
PYRAMIDS = {"FPN": False, "FPN + CEM": True}


@dataclass
class Study:
    """Where the data and weights of one run are, and how it is configured."""

    args: argparse.Namespace

    def config(self, max_size: float, cem: bool, schedule: list[Any], weights: str) -> CfgNode:
        """Of one or more stages on the set of objects up to ``max_size``, without evaluation."""
        cfg = base_config(PROTOCOLS[self.args.protocol], VARIANT, self.args.seed)
        name = f"signs_up_to_{max_size:g}_px"
        files = synthetic_paths(VARIANT, "train", str(self.dataset_folder(max_size)))
        cfg.COCO_DATA.REGISTER = [[name, *map(str, map(Path.absolute, files))]]
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), ()
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = self.args.device, weights
        cfg.MODEL.EFPN_BS.CEM_ENABLED = cem
        cfg.DISTILL.SCHEDULE = schedule
        return cfg

    def dataset_folder(self, max_size: float) -> Path:
        return self.args.output / self.args.protocol / f"up_to_{max_size:g}_px"

    def generate(self, max_size: float) -> None:
        protocol = PROTOCOLS[self.args.protocol]
        config = SyntheticConfig(
            variant=VARIANT,
            split="train",
            num_images=self.args.train_images or protocol.train_images,
            student_size=protocol.student_size,
            max_size=max_size,
        )
        generate_synthetic(config, root=str(self.dataset_folder(max_size)))

    def train(self, name: str, cem: bool, iterations: int, rate: float, weights: str = "") -> str:
        """Path of the weights after a training on the protocol's set; a finished one is kept."""
        max_size = PROTOCOLS[self.args.protocol].max_object_size
        cfg = self.config(max_size, cem, [["base", iterations, rate]], weights)
        cfg.OUTPUT_DIR = str(self.args.output / self.args.protocol / name)
        register_datasets(cfg)
        run_stages(cfg, DistillationTrainer)
        return str(Path(cfg.OUTPUT_DIR, "base", "model_final.pth"))

    def rows(self, max_size: float, label: str, weights: dict[str, str]) -> list[dict[str, Any]]:
        """FPN and FPN with CEM on the same batches.

        Args:
            max_size: of the set's objects.
            label: of the weights, in the record.
            weights: a file for each of ``PYRAMIDS``; "": new weights, those of the stock detector
                equal in both.
        """
        rows: list[dict[str, Any]] = []
        stock: dict[str, torch.Tensor] = {}
        for pyramid, cem in PYRAMIDS.items():
            (cfg,) = stage_configs(self.config(max_size, cem, [["base", 1, 0.01]], ""))
            register_datasets(cfg)
            seed_all_rng(cfg.SEED)
            model = DistillationTrainer.build_model(cfg)
            if not weights[pyramid]:
                model.load_state_dict(stock, strict=False)
                stock = stock or {k: v.clone() for k, v in model.state_dict().items()}
            EFPNCheckpointer(model).load(weights[pyramid])
            loader = DistillationTrainer.build_train_loader(cfg)
            batches = list(itertools.islice(loader, self.args.batches))
            levels = summarize(cfg.MODEL.RPN.IN_FEATURES, measure(model, batches, cfg.SEED))
            row = {"max_object_size": max_size, "weights": label, "pyramid": pyramid}
            rows.append({**row, "levels": levels})
            print(f"up to {max_size:g} px, {label}, {pyramid}: {report(levels)}")
        return rows


def report(levels: dict[str, dict[str, Any]]) -> str:
    """The shares of positives and of the output convolutions' gradients in percent."""
    names = ("positive_anchors", "output_conv")
    columns = {name: [x["share"][name] for x in levels.values()] for name in names}
    return ", ".join(
        f"{name} {' '.join('-' if v is None else f'{100 * v:.2f}' for v in values)}"
        for name, values in columns.items()
    )


def iterations_of(weights: str) -> int | None:
    """How long a checkpoint of Detectron2 was trained; None: it does not say."""
    checkpoint = torch.load(weights, map_location="cpu", weights_only=False)
    return checkpoint["iteration"] + 1 if "iteration" in checkpoint else None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", default="small", choices=PROTOCOLS)
    parser.add_argument("--weights", default="", help="of the trained base, instead of training it")
    parser.add_argument(
        "--iterations", type=not_negative, default=0, help="of the base; 0: the protocol's"
    )
    parser.add_argument(
        "--finetune",
        type=not_negative,
        default=200,
        help="iterations of FPN and of FPN + CEM after it",
    )
    parser.add_argument(
        "--max-sizes",
        type=float,
        nargs="+",
        help="of the objects in pixels, a set each; default: the protocol's and 16",
    )
    parser.add_argument(
        "--batches", type=positive, default=50, help="to measure, of the protocol's size"
    )
    parser.add_argument("--seed", type=not_negative, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train-images", type=not_negative, default=0, help="0: the protocol's")
    parser.add_argument("--output", type=Path, default=Path("output/level_gradients"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    args = parser.parse_args(argv)
    args.max_sizes = args.max_sizes or [PROTOCOLS[args.protocol].max_object_size, 16.0]
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    study = Study(args)
    seconds: dict[str, float] = {}
    protocol = PROTOCOLS[args.protocol]
    stages = lengths(base_config(protocol, VARIANT, args.seed).DISTILL.SCHEDULE)
    with timed(seconds, "data"):
        for max_size in sorted({*args.max_sizes, protocol.max_object_size}):
            study.generate(max_size)
    (iterations, rate), (_, later_rate) = stages["base"], stages["rest"]
    with timed(seconds, "train"):
        base = args.weights or study.train("base", False, args.iterations or iterations, rate)
        states = {"new": dict.fromkeys(PYRAMIDS, ""), "trained": dict.fromkeys(PYRAMIDS, base)}
        if args.finetune:
            states["finetuned"] = {
                pyramid: study.train(f"finetuned_{cem:d}", cem, args.finetune, later_rate, base)
                for pyramid, cem in PYRAMIDS.items()
            }
    rows = []
    with timed(seconds, "measure"):
        for max_size, (label, weights) in itertools.product(args.max_sizes, states.items()):
            rows += study.rows(max_size, label, weights)
    record = {
        "protocol": args.protocol,
        "base": {"iterations": iterations_of(base), "max_object_size": protocol.max_object_size},
        "finetune": {"iterations": args.finetune, "learning_rate": later_rate},
        "batches": args.batches,
        "images_per_batch": base_config(protocol, VARIANT, args.seed).SOLVER.IMS_PER_BATCH,
        "min_object_size": SyntheticConfig().min_size,
        "seconds": seconds,
        "rows": rows,
    }
    write_record(args.results / "level_gradients.json", {**collect_run_record(args.seed), **record})


if __name__ == "__main__":
    main()
