"""Load a config, and run a detector on single images."""

import logging
from collections.abc import Sequence
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
from efpn_d2.model_zoo import get_config_file
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.meta_arch import EFPNWithTTA
from efpn_d2.modeling.stage_config import without_stage
from efpn_d2.utils.config_files import check_weights_file, use_cpu_without_cuda
from efpn_d2.utils.logs import without_messages

logger = logging.getLogger(__name__)

# Errors that yacs raises for an invalid file or option.
_CONFIG_ERRORS = (AssertionError, AttributeError, KeyError, TypeError, ValueError, YAMLError)


def load_inference_config(
    config: str, opts: Sequence[str] = (), score_threshold: float | None = None
) -> CfgNode:
    """Load a config for inference, without the stage of its training.

    Args:
        config: path of a YAML file, or the name of a packaged config.
        opts: pairs of key and value that override the file, as on Detectron2's command line.
        score_threshold: minimum score of a detection, for every kind of detector; None: the
            config's.

    Returns:
        A frozen config. Its ``MODEL.DEVICE`` is the CPU if CUDA is requested but not available.

    Raises:
        FileNotFoundError: if neither such a file nor such a packaged config exists.
        ValueError: if the file is not a config, ``opts`` are not pairs of a known key and a valid
            value, ``INPUT.FORMAT`` is neither BGR nor RGB, or see :func:`check_config`.
    """
    cfg = get_cfg()
    add_efpn_config(cfg)
    path = get_config_file(config)
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
    if use_cpu_without_cuda(cfg):
        logger.warning("CUDA is not available: running on the CPU.")
    cfg.freeze()
    return cfg


def _reason(error: Exception) -> str:
    """Return the message of a config library on one line, without the quotes of a KeyError."""
    text = error.args[0] if isinstance(error, KeyError) else error
    text = " ".join(str(text).split()).rstrip(".")
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"  # it may list a node


class EFPNPredictor(DefaultPredictor):
    """:class:`DefaultPredictor` that loads weights as in training, and also runs without CUDA.

    The heads on P'2 are initialized from a stock FPN checkpoint; see
    :class:`efpn_d2.checkpoint.EFPNCheckpointer`. With ``TEST.AUG.ENABLED`` it detects at the scales
    of ``TEST.AUG``; see :class:`efpn_d2.modeling.EFPNWithTTA`.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: a config; not modified. Without ``MODEL.WEIGHTS`` the detector has random weights.

        Raises:
            FileNotFoundError: if the file ``MODEL.WEIGHTS`` does not exist.
            ValueError: if ``TEST.AUG.ENABLED`` is set for a detector without multi-scale testing,
                ``INPUT.FORMAT`` is neither BGR nor RGB, or see :func:`check_config`.
        """
        check_input_format(cfg)
        cfg = without_stage(cfg)
        check_config(cfg)
        weights = cfg.MODEL.WEIGHTS
        if not weights:
            logger.warning("MODEL.WEIGHTS is empty: the detector has random weights.")
        check_weights_file(cfg)
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        if use_cpu_without_cuda(without_weights):
            logger.warning("CUDA is not available: running on the CPU.")
        with without_messages("fvcore.common.checkpoint"):  # for training from scratch
            super().__init__(without_weights)
        self.cfg.MODEL.WEIGHTS = weights
        if weights:
            EFPNCheckpointer(self.model, init_from_stock=cfg.MODEL.EFPN.INIT_FROM_STOCK).load(
                weights
            )
        self.multi_scale = EFPNWithTTA(cfg, self.model) if cfg.TEST.AUG.ENABLED else None

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """Run the detector on one image, as in ``DefaultPredictor``.

        Args:
            original_image: uint8 image as read by ``cv2.imread``: (H, W, 3) BGR. The alpha of (H,
                W, 4) is dropped, and gray, (H, W) or (H, W, 1), is repeated.

        Raises:
            ValueError: if the image has another format, or its shorter side would vanish when
                resized; the message says what to do.
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
