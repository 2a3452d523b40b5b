#!/usr/bin/env python
"""Generate data, train a small EFPN, evaluate it by object size and draw its detections.

Finished steps are not repeated: an interrupted run continues, and a finished run is only evaluated
again.
"""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from efpn_d2.data.datasets import register_datasets
from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic
from efpn_d2.engine import EFPNTrainer
from efpn_d2.inference import load_inference_config
from efpn_d2.utils.run_record import collect_run_record, headline, timed, write_record
from efpn_d2.utils.tool_support import draw_without_window, error_text, positive
from efpn_d2.visualization.coco_records import load_image_records
from efpn_d2.visualization.sheet import write_image_sheet

CONFIG = "Synthetic/demo_faster_rcnn_R_18_EFPN.yaml"


class DemoTrainer(EFPNTrainer):
    """Trainer without evaluation; the demo evaluates separately to time it."""

    def build_hooks(self) -> list[HookBase]:
        """Return the hooks of the base class without evaluation."""
        return [hook for hook in super().build_hooks() if not isinstance(hook, hooks.EvalHook)]


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="a YAML file or a packaged config")
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument(
        "--train-images", type=positive, default=800, help="number of images to generate"
    )
    parser.add_argument(
        "--val-images", type=positive, default=100, help="number of images to generate"
    )
    parser.add_argument("--fresh", action="store_true", help="delete the output folder first")
    parser.add_argument("opts", nargs="*", help="config keys and values")
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Return the demo's config.

    Raises:
        ValueError: if the folder holds a training with another config.
    """
    # The demo has its own data folder, since it uses fewer images than a training set.
    os.environ["DETECTRON2_DATASETS"] = str(args.output / "datasets")
    cfg = load_inference_config(args.config_file, args.opts).clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(args.output)
    cfg.SEED = max(cfg.SEED, 0)
    cfg.freeze()
    noted = args.output / "config.yaml"
    if noted.exists() and noted.read_text() != cfg.dump():
        raise ValueError(
            f"'{args.output}' holds a demo with another config; use --fresh to delete it."
        )
    (args.output / "datasets").mkdir(parents=True, exist_ok=True)
    noted.write_text(cfg.dump())
    setup_logger(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, name="fvcore")
    setup_logger(cfg.OUTPUT_DIR, name="efpn_d2")
    # This logger prints every layer of the model.
    logging.getLogger("detectron2.engine.defaults").setLevel(logging.WARNING)
    seed_all_rng(cfg.SEED)
    return cfg


def start_anew(folder: Path) -> None:
    """Delete an earlier demo.

    Raises:
        ValueError: if the folder holds something else.
    """
    if (folder / "config.yaml").exists() and (folder / "datasets").exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' does not look like a demo folder: delete it yourself.")


def generate(cfg: CfgNode, num_train: int, num_val: int) -> None:
    """Generate the training and validation images."""
    for name, count in ((cfg.DATASETS.TRAIN[0], num_train), (cfg.DATASETS.TEST[0], num_val)):
        variant, split = name.split("_")[-2:]  # e.g. synthetic_signs_native2x_train
        # The images have the size of the network's input, so that sizes in pixels are the same
        # everywhere.
        size = cfg.INPUT.MIN_SIZE_TEST
        generate_synthetic(
            SyntheticConfig(variant=variant, split=split, num_images=count, student_size=size)
        )


def train(cfg: CfgNode) -> DemoTrainer:
    """Train the demo's model, or load it if it is already trained."""
    trainer = DemoTrainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < cfg.SOLVER.MAX_ITER:
        trainer.train()
    return trainer


def write_sheet(cfg: CfgNode, path: Path) -> None:
    """Write a sheet of images with ground truth and detections."""
    name = cfg.DATASETS.TEST[0]
    detections = Path(cfg.OUTPUT_DIR, "inference", "coco_instances_results.json")
    records = load_image_records(name, detections)
    title = f"Small EFPN after {cfg.SOLVER.MAX_ITER} iterations on {name}"
    names = MetadataCatalog.get(name).thing_classes
    layout = {"max_images": 5, "width": 1200, "panel_height": 640}
    write_image_sheet(path, records, names, title=title, score_threshold=0.4, **layout)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the demo and return the content of ``results.json``."""
    draw_without_window()
    parser = build_parser()
    args = parser.parse_args(argv)
    sheet, results = args.output / "sheet.png", args.output / "results.json"
    seconds: dict[str, float] = {}
    try:
        if args.fresh:
            start_anew(args.output)
        cfg = setup(args)
        with timed(seconds, "generate"):
            generate(cfg, args.train_images, args.val_images)
            register_datasets(cfg)
    except (OSError, ValueError) as error:
        parser.error(error_text(error))
    with timed(seconds, "train"):
        trainer = train(cfg)
    with timed(seconds, "evaluate"):
        metrics = EFPNTrainer.test(cfg, trainer.model)["bbox"]
    with timed(seconds, "draw"):
        write_sheet(cfg, sheet)
    if trainer.start_iter == cfg.SOLVER.MAX_ITER and results.exists():
        # Nothing was trained in this run, so the cost of training is read from the previous record.
        before = json.loads(results.read_text())["seconds"]
        seconds.update({phase: before[phase] for phase in ("generate", "train")})
    record = {
        **collect_run_record(cfg.SEED),
        "config_file": args.config_file,
        "config": cfg.dump(),
        "train_images": args.train_images,
        "val_images": args.val_images,
        "seconds": seconds,
        "metrics": metrics,
    }
    write_record(results, record)
    print(f"\n{headline(metrics)}\n\nImage sheet: {sheet}\nAll numbers: {results}")
    return record


if __name__ == "__main__":
    main()
