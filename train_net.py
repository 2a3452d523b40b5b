#!/usr/bin/env python
"""Train and evaluate EFPN detectors, with the command line of Detectron2's own train_net.py.

Examples:
    train_net.py --config-file COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml --num-gpus 8
    train_net.py --config-file my.yaml --train-json a.json --train-images a/ SOLVER.BASE_LR 0.01
    train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
    train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS output/model_final.pth \\
        TEST.AUG.ENABLED True TEST.AUG.MIN_SIZES "(1400, 2000, 2800)"
    torchrun --nproc-per-node 2 train_net.py --config-file my.yaml
"""

import argparse
import logging
from typing import Any

from detectron2.evaluation import verify_results
from detectron2.utils import comm

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.engine import DistillationTrainer, EFPNTrainer, launch_or_join
from efpn_d2.engine.command_line import parse_args, refusals_as_sentences, setup
from efpn_d2.modeling.stage_config import without_stage

logger = logging.getLogger("efpn_d2.train_net")


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or evaluate with ``--eval-only``, in one process of the job.

    Returns:
        The metrics of an evaluation; see ``DefaultTrainer.train`` for those of a training.
    """
    cfg = setup(args)
    if not args.eval_only:
        if cfg.DISTILL.SCHEDULE and not cfg.DISTILL.STAGE:
            logger.warning(
                "DISTILL.SCHEDULE is for tools/run_stages.py: this trains the whole detector at "
                "once, without distillation."
            )
        with refusals_as_sentences():
            trainer = DistillationTrainer(cfg) if cfg.DISTILL.STAGE else EFPNTrainer(cfg)
            trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    with refusals_as_sentences():
        model = EFPNTrainer.build_model(without_stage(cfg))
        EFPNCheckpointer(
            model, cfg.OUTPUT_DIR, init_from_stock=cfg.MODEL.EFPN.INIT_FROM_STOCK
        ).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = EFPNTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(EFPNTrainer.test_at_scales(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    launch_or_join(main, parse_args(__doc__))
