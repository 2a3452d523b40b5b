"""From a config file to a detector for single images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultPredictor
from yaml import YAMLError

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.config import add_efpn_config, check_input_format
from efpn_d2.data.image_reading import vanishes
from efpn_d2.inference.image_arrays import to_bgr
from efpn_d2.logs import without_messages
from efpn_d2.model_zoo import get_config_file
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.meta_arch import EFPNWithTTA
from efpn_d2.modeling.stages import without_stage

logger = logging.getLogger(__name__)

# What yacs raises for a file or an option that does not fit.
_CONFIG_ERRORS = (AssertionError, AttributeError, KeyError, TypeError, ValueError, YAMLError)


def load_inference_config(
    config: str, opts: Sequence[str] = (), score_threshold: float | None = None
) -> CfgNode:
    """Read a config for inference, without the stage of its training.

    Args:
        config: path of a YAML file, or the name of a packaged config.
        opts: pairs of key and value that override the file, as on Detectron2's command line.
        score_threshold: least score of a detection, for every kind of detector; None: the file's.

    Returns:
        A frozen config. Its ``MODEL.DEVICE`` is the CPU where it asks for CUDA and there is none.

    Raises:
        FileNotFoundError: there is neither such a file nor such a packaged config.
        ValueError: the file is no config, or ``opts`` are no pairs of a known key and a fitting
            value, or ``INPUT.FORMAT`` is neither BGR nor RGB, or as :func:`check_config`.
    """
    cfg = get_cfg()
    add_efpn_config(cfg)
    path = config if Path(config).is_file() else get_config_file(config)
    try:
        cfg.merge_from_file(path)
    except _CONFIG_ERRORS as error:
        raise ValueError(f"Cannot read the config '{path}': {_reason(error)}.") from error
    try:
        cfg.merge_from_list(list(opts))
    except _CONFIG_ERRORS as error:
        raise ValueError(f"Cannot apply the options {list(opts)}: {_reason(error)}.") from error
    check_input_format(cfg)
    cfg = without_stage(cfg)
    check_config(cfg)
    if score_threshold is not None:
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
        cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score_threshold
    _use_cpu_without_cuda(cfg)
    cfg.freeze()
    return cfg


def _use_cpu_without_cuda(cfg: CfgNode) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("No CUDA device: running on the CPU.")
        cfg.MODEL.DEVICE = "cpu"


def _reason(error: Exception) -> str:
    """What a config library says, on one line; the text of a KeyError without its quotes."""
    text = error.args[0] if isinstance(error, KeyError) else error
    text = " ".join(str(text).split()).rstrip(".")
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"  # it may list a node


class EFPNPredictor(DefaultPredictor):
    """:class:`DefaultPredictor` that loads weights as training does, and runs without CUDA.

    A stock FPN checkpoint gives its heads to P'2 as well, see
    :class:`efpn_d2.checkpoint.EFPNCheckpointer`. With ``TEST.AUG.ENABLED`` it detects at the scales
    of ``TEST.AUG``, see :class:`efpn_d2.modeling.EFPNWithTTA`.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: a config; not changed. Without ``MODEL.WEIGHTS`` the detector has random weights.

        Raises:
            FileNotFoundError: ``MODEL.WEIGHTS`` names no file.
            ValueError: ``TEST.AUG.ENABLED``, for a detector that has no multi-scale test, or
                ``INPUT.FORMAT`` is neither BGR nor RGB, or as :func:`check_config`.
        """
        check_input_format(cfg)
        cfg = without_stage(cfg)
        check_config(cfg)
        weights = cfg.MODEL.WEIGHTS
        if not weights:
            logger.warning("MODEL.WEIGHTS is empty: this detector has learned nothing.")
        elif "://" not in weights and not Path(weights).is_file():
            raise FileNotFoundError(f"MODEL.WEIGHTS: there is no file '{weights}'.")
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        _use_cpu_without_cuda(without_weights)
        with without_messages("fvcore.common.checkpoint"):  # of a start from scratch
            super().__init__(without_weights)
        self.cfg.MODEL.WEIGHTS = weights
        if weights:
            EFPNCheckpointer(self.model, init_from_stock=cfg.MODEL.EFPN.INIT_FROM_STOCK).load(
                weights
            )
        self.multi_scale = EFPNWithTTA(cfg, self.model) if cfg.TEST.AUG.ENABLED else None

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """As ``DefaultPredictor``.

        Args:
            original_image: uint8 as ``cv2.imread`` gives it: (H, W, 3) BGR. Of (H, W, 4) the alpha
                is dropped, and grey, (H, W) or (H, W, 1), is repeated.

        Raises:
            ValueError: it is anything else, or nothing would be left of its shorter side; the
                message says what to do.
        """
        original_image = to_bgr(original_image)
        height, width = original_image.shape[:2]
        if self.multi_scale is None:
            node = self.cfg.INPUT
            if vanishes(width, height, node.MIN_SIZE_TEST, node.MAX_SIZE_TEST):
                raise ValueError(
                    f"The image of {width} x {height} pixels is too narrow for INPUT.MAX_SIZE_TEST "
                    f"{node.MAX_SIZE_TEST}: nothing is left of its shorter side; cut it into tiles."
                )
            return super().__call__(original_image)
        image = original_image[:, :, ::-1] if self.input_format == "RGB" else original_image
        pixels = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        with torch.no_grad():
            return self.multi_scale([{"image": pixels, "height": height, "width": width}])[0]
