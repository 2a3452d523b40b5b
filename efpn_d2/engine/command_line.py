"""Arguments, config, logging and datasets of the training scripts."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from efpn_d2.config import add_efpn_config
from efpn_d2.data.datasets import (
    add_dataset_arguments,
    apply_dataset_arguments,
    check_files_exist,
    register_datasets,
    suspicions,
)
from efpn_d2.model_zoo import get_config_file
from efpn_d2.modeling.meta_arch import check_multi_scale_test
from efpn_d2.modeling.stage_config import stage_config
from efpn_d2.utils.config_files import check_weights_file, use_cpu_without_cuda
from efpn_d2.utils.tool_support import draw_without_window, error_text


def parse_args(epilog: str | None) -> argparse.Namespace:
    """Parse Detectron2's arguments and those that name datasets.

    ``--config-file`` may also be the name of a packaged config; an unknown one ends the program.

    Args:
        epilog: shown after the help.
    """
    draw_without_window()
    parser = default_argument_parser(epilog=epilog)
    add_dataset_arguments(parser)
    args = parser.parse_args()
    if args.config_file and not os.path.isfile(args.config_file):
        try:
            args.config_file = get_config_file(args.config_file)
        except FileNotFoundError as error:
            parser.error(str(error))
    return args


def setup(args: argparse.Namespace) -> CfgNode:
    """Build the config from the command line, set up logging and register the datasets.

    An error in the config or the datasets ends the program with one sentence.
    """
    with refusals_as_sentences():
        cfg = _load_config(args)
        splits = ("TEST",) if args.eval_only else ("TRAIN", "TEST")
        register_datasets(cfg, splits)
        _check_weights(cfg, args)
        check_files_exist(cfg, splits)
        warnings = suspicions(cfg, splits)
        if args.eval_only and cfg.TEST.AUG.ENABLED:
            check_multi_scale_test(cfg)
    without_cuda = use_cpu_without_cuda(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    logger = setup_logger(cfg.OUTPUT_DIR, comm.get_rank(), name="efpn_d2")
    for warning in warnings:
        logger.warning(warning)
    if without_cuda:
        logger.info("CUDA is not available: running on the CPU.")
    if args.resume and not _last_checkpoint(cfg):
        logger.warning(
            f"--resume found no checkpoint: {cfg.OUTPUT_DIR} has no file last_checkpoint. Starting "
            "from MODEL.WEIGHTS."
        )
    return cfg


@contextlib.contextmanager
def refusals_as_sentences() -> Iterator[None]:
    """End the program with the message alone if a config, a file or weights are refused.

    Use it around preparation only: an error in training or evaluation needs its traceback.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, AssertionError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) else error_text(error)
        if not text:
            raise
        if "<class 'float'> vs. <class 'int'>" in text:
            text += "; write it with a decimal point, like 56.0"
        sys.exit(f"error: {text}")


def _last_checkpoint(cfg: CfgNode) -> bool:
    return os.path.isfile(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))


def _check_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    if args.resume and _last_checkpoint(cfg):
        return
    check_weights_file(cfg)
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise ValueError(
            "--eval-only needs weights to evaluate: set MODEL.WEIGHTS, or add --resume to use the "
            f"last checkpoint in OUTPUT_DIR {cfg.OUTPUT_DIR}."
        )


def _load_config(args: argparse.Namespace) -> CfgNode:
    cfg = get_cfg()
    add_efpn_config(cfg)
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    apply_dataset_arguments(cfg, args)
    return stage_config(cfg)
