"""Load trained pyramids for inspection."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, RetinaNet, build_model
from torch import nn

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.inference.predictor import load_inference_config
from efpn_d2.modeling.backbone import EFPN

if TYPE_CHECKING:
    from fvcore.common.checkpoint import _IncompatibleKeys


_BACKBONE, _EXTENSION = "backbone.", "backbone.extension."

# Parts that other checkpoints may lack: their names, and what to do.
_PARTS = {
    _EXTENSION: ("the extended level", "use the checkpoint of stage distill, head or joint"),
    "backbone.enhancement.fbsm.": ("FBSM", "use a checkpoint that was trained with it"),
}


class PyramidSource(NamedTuple):
    """Config and weights of a trained pyramid, and its label in a figure."""

    label: str  # the weights' path if none is given
    config: str  # a YAML file or a packaged config
    weights: str  # a checkpoint


def parse_pyramid_source(text: str, *, needs_label: bool = True) -> PyramidSource:
    """Parse ``LABEL=CONFIG:WEIGHTS``; the weights may be an address such as ``https://...``.

    Args:
        text: the text.
        needs_label: False also allows ``CONFIG:WEIGHTS``; the label is then ``WEIGHTS``.

    Raises:
        ValueError: if a part is missing.
    """
    label, separator, rest = text.partition("=")
    # An address may contain an equals sign.
    unlabelled = not needs_label and (not separator or ":" in label)
    config, _, weights = (text if unlabelled else rest).partition(":")
    source = PyramidSource(weights if unlabelled else label.strip(), config, weights)
    if not all(source):
        form = "LABEL=CONFIG:WEIGHTS" if needs_label else "CONFIG:WEIGHTS or LABEL=CONFIG:WEIGHTS"
        raise ValueError(
            f"'{text}' does not name a model: write {form}, for example "
            "FTT=config.yaml:model_final.pth."
        )
    return source


def load_pyramid(
    source: PyramidSource, opts: Sequence[str] = (), *, stock_only: bool = False
) -> tuple[CfgNode, GeneralizedRCNN | RetinaNet]:
    """Build a detector with P'2 from a config and load its weights.

    Args:
        source: config and weights.
        opts: pairs of key and value that override the config.
        stock_only: whether the weights may lack the extended level, as those of a teacher do.

    Returns:
        The config, and the detector in evaluation mode; its ``backbone`` is an :class:`EFPN`.

    Raises:
        FileNotFoundError: if the config or the weights file does not exist.
        ValueError: if the config builds another pyramid, or weights are missing.
    """
    cfg, model = build_detector(source, opts)
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, EFPN) or "p2" not in backbone.output_shape():
        raise ValueError(
            f"The config '{source.config}' builds no pyramid with both P2 and P'2: use one whose "
            "MODEL.BACKBONE.NAME is build_resnet_efpn_backbone."
        )
    load_weights(model, source, optional=_EXTENSION if stock_only else None)
    return cfg, model


def build_detector(
    source: PyramidSource, opts: Sequence[str] = ()
) -> tuple[CfgNode, GeneralizedRCNN | RetinaNet]:
    """Build the detector of a config, with any pyramid, for :func:`load_weights`.

    Args:
        source: config and weights.
        opts: pairs of key and value that override the config.

    Returns:
        The config, and the detector in evaluation mode with random weights.

    Raises:
        FileNotFoundError: if the config or the weights file does not exist.
        ValueError: if the config cannot be read, or ``opts`` are invalid.
    """
    if "://" not in source.weights and not Path(source.weights).is_file():
        raise FileNotFoundError(f"The weights file '{source.weights}' does not exist.")
    cfg = load_inference_config(source.config, opts)
    return cfg, build_model(cfg).eval()


def load_weights(model: nn.Module, source: PyramidSource, *, optional: str | None = None) -> None:
    """Load the weights of a detector, which must be complete for its backbone.

    Args:
        model: the result of :func:`build_detector` for ``source``.
        source: config and weights.
        optional: prefix of the weights that may be missing.

    Raises:
        ValueError: if the file is not a checkpoint, or lacks weights of the backbone.
    """
    _CompleteCheckpointer(model, source=source, optional=optional).load(source.weights)


class _CompleteCheckpointer(EFPNCheckpointer):
    """Checkpointer that refuses files without all weights of a pyramid."""

    def __init__(self, model: nn.Module, *, source: PyramidSource, optional: str | None) -> None:
        super().__init__(model)
        self._source = source
        self._optional = optional

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # Unlike in the base class, missing parts are not initialized from stock parts.
        absent = [key for key in incompatible.missing_keys if key.startswith(_BACKBONE)]
        stock = [key for key in absent if not key.startswith(tuple(_PARTS))]
        if stock:
            raise ValueError(
                f"'{self._source.weights}' lacks {len(stock)} tensors that match the backbone of "
                f"'{self._source.config}' ({stock[0]} is one): it belongs to another config."
            )
        for part, (name, advice) in _PARTS.items():
            lacking = [key for key in absent if key.startswith(part)]
            if lacking and part != self._optional:
                raise ValueError(
                    f"'{self._source.weights}' lacks matching weights of {name} of "
                    f"'{self._source.config}' ({lacking[0]} is one): {advice}, and the config "
                    "that it was trained with."
                )
