#!/usr/bin/env python
"""Train the stages of DISTILL.SCHEDULE one after another, such as base, distill, head.

Run again with the same arguments, it skips finished stages and resumes an interrupted one.

Example:
    run_stages.py --config-file Distillation/faster_rcnn_R_50_EFPN_stages.yaml --num-gpus 8
"""

import argparse
import sys

from efpn_d2.engine import StageError, launch_or_join
from efpn_d2.engine.command_line import parse_args, setup
from efpn_d2.engine.stages import run_stages
from efpn_d2.utils.tool_support import error_text


def main(args: argparse.Namespace) -> None:
    """Run all stages; called in every process of the job."""
    if args.eval_only:
        sys.exit(
            "error: --eval-only evaluates one detector: use train_net.py with a stage's "
            "config.yaml and MODEL.WEIGHTS."
        )
    cfg = setup(args)
    try:
        run_stages(cfg)
    except StageError as error:
        sys.exit(f"error: {error_text(error)}")


if __name__ == "__main__":
    launch_or_join(main, parse_args(__doc__))
