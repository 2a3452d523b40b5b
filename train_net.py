#!/usr/bin/env python
"""Train and evaluate EFPN detectors, with the command line of Detectron2's own train_net.py.

Examples:
    train_net.py --config-file COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml --num-gpus 8
    train_net.py --config-file my.yaml --train-json a.json --train-images a/ SOLVER.BASE_LR 0.01
    train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
    torchrun --nproc-per-node 2 train_net.py --config-file my.yaml
"""

import argparse
import os
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from efpn_d2 import add_efpn_config, get_config_file
from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.datasets import (
    add_dataset_arguments,
    apply_dataset_arguments,
    register_datasets,
)
from efpn_d2.engine import DistillationTrainer, EFPNTrainer, launch_or_join


def parse_args() -> argparse.Namespace:
    parser = default_argument_parser(epilog=__doc__)
    add_dataset_arguments(parser)
    args = parser.parse_args()
    if args.config_file and not os.path.isfile(args.config_file):
        try:
            args.config_file = get_config_file(args.config_file)
        except FileNotFoundError as error:
            parser.error(str(error))
    return args


def setup(args: argparse.Namespace) -> CfgNode:
    """The config of the command line, with the data sets it names registered."""
    cfg = get_cfg()
    add_efpn_config(cfg)
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    apply_dataset_arguments(cfg, args)
    without_cuda = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if without_cuda:
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    default_setup(cfg, args)
    logger = setup_logger(cfg.OUTPUT_DIR, comm.get_rank(), name="efpn_d2")
    if without_cuda:
        logger.info("CUDA is not available: running on the CPU.")
    register_datasets(cfg)
    return cfg


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or evaluate with ``--eval-only``, in one process of the job.

    Returns:
        The metrics of an evaluation; see ``DefaultTrainer.train`` for those of a training.
    """
    cfg = setup(args)
    if not args.eval_only:
        trainer = DistillationTrainer(cfg) if cfg.DISTILL.STAGE else EFPNTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    model = EFPNTrainer.build_model(cfg)
    EFPNCheckpointer(
        model, cfg.OUTPUT_DIR, init_from_stock=cfg.MODEL.EFPN.INIT_FROM_STOCK
    ).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = EFPNTrainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    launch_or_join(main, parse_args())
