"""Trained pyramids whose extended level is to be looked at."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint import EFPNCheckpointer
from ..modeling.backbone import EFPN
from .predictor import load_inference_config

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys

__all__ = ["PyramidSource", "load_pyramid", "parse_pyramid_source"]

_BACKBONE, _EXTENSION = "backbone.", "backbone.extension."


class PyramidSource(NamedTuple):
    """What a trained pyramid is made from, and its name in a picture."""

    label: str
    config: str  # a YAML file or a packaged config
    weights: str  # a checkpoint


def parse_pyramid_source(text: str) -> PyramidSource:
    """Read ``LABEL=CONFIG:WEIGHTS``; the weights may be an address such as ``https://...``.

    Raises:
        ValueError: a part is missing.
    """
    label, _, rest = text.partition("=")
    config, _, weights = rest.partition(":")
    source = PyramidSource(label.strip(), config, weights)
    if not all(source):
        raise ValueError(
            f"'{text}' does not name a model: write LABEL=CONFIG:WEIGHTS, for example "
            "FTT=config.yaml:model_final.pth."
        )
    return source


def load_pyramid(
    source: PyramidSource, opts: Sequence[str] = (), *, stock_only: bool = False
) -> tuple[CfgNode, nn.Module]:
    """Build the detector of a config and load its weights.

    Args:
        source: config and weights.
        opts: pairs of key and value that override the config.
        stock_only: the weights need not have the extended level, as those of a teacher.

    Returns:
        The config, and the detector in evaluation mode; its ``backbone`` is an :class:`EFPN`.

    Raises:
        FileNotFoundError: there is no such config or no such file of weights.
        ValueError: the config builds another pyramid, or the weights are not all there.
    """
    if "://" not in source.weights and not Path(source.weights).is_file():
        raise FileNotFoundError(f"There is no file of weights '{source.weights}'.")
    cfg = load_inference_config(source.config, opts)
    model = build_model(cfg)
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, EFPN) or "p2" not in backbone.output_shape():
        raise ValueError(
            f"The config '{source.config}' builds no pyramid with both P2 and P'2: give one whose "
            "MODEL.BACKBONE.NAME is build_resnet_efpn_backbone."
        )
    try:
        _CompleteCheckpointer(model, source=source, stock_only=stock_only).load(source.weights)
    except (EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"'{source.weights}' cannot be read as a checkpoint: {str(error).splitlines()[0]}"
        ) from error
    return cfg, model.eval()


class _CompleteCheckpointer(EFPNCheckpointer):
    """Loads only files that have all that a pyramid needs: random weights make no picture."""

    def __init__(self, model: nn.Module, *, source: PyramidSource, stock_only: bool) -> None:
        super().__init__(model)
        self._source = source
        self._stock_only = stock_only

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # In place of making new parts of stock ones: nothing may be made up.
        absent = [key for key in incompatible.missing_keys if key.startswith(_BACKBONE)]
        stock = [key for key in absent if not key.startswith(_EXTENSION)]
        if stock:
            raise ValueError(
                f"'{self._source.weights}' lacks {len(stock)} tensors that fit the backbone of "
                f"'{self._source.config}' ({stock[0]} is one): it belongs to another config."
            )
        if absent and not self._stock_only:
            raise ValueError(
                f"'{self._source.weights}' lacks fitting weights of the extended level of "
                f"'{self._source.config}' ({absent[0]} is one): give the checkpoint of stage "
                "distill, head or joint, and the config that it was trained with."
            )
