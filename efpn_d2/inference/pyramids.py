"""Trained pyramids whose maps are to be looked at."""

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

# Parts that checkpoints of other trainings lack: what they are called, and what to do about it.
_PARTS = {
    _EXTENSION: ("the extended level", "give the checkpoint of stage distill, head or joint"),
    "backbone.enhancement.fbsm.": ("FBSM", "give a checkpoint that was trained with it"),
}


class PyramidSource(NamedTuple):
    """What a trained pyramid is made from, and its name in a picture."""

    label: str  # or the weights, where none is given
    config: str  # a YAML file or a packaged config
    weights: str  # a checkpoint


def parse_pyramid_source(text: str, *, needs_label: bool = True) -> PyramidSource:
    """Read ``LABEL=CONFIG:WEIGHTS``; the weights may be an address such as ``https://...``.

    Args:
        text: what to read.
        needs_label: False allows ``CONFIG:WEIGHTS`` too; the label is then ``WEIGHTS``.

    Raises:
        ValueError: a part is missing.
    """
    label, separator, rest = text.partition("=")
    # An address may have an equals sign of its own.
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
    """Build the detector of a config with P'2 and load its weights.

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
    cfg, model = build_detector(source, opts)
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, EFPN) or "p2" not in backbone.output_shape():
        raise ValueError(
            f"The config '{source.config}' builds no pyramid with both P2 and P'2: give one whose "
            "MODEL.BACKBONE.NAME is build_resnet_efpn_backbone."
        )
    load_weights(model, source, optional=_EXTENSION if stock_only else None)
    return cfg, model


def build_detector(
    source: PyramidSource, opts: Sequence[str] = ()
) -> tuple[CfgNode, GeneralizedRCNN | RetinaNet]:
    """Build the detector of a config, any pyramid, for :func:`load_weights`.

    Args:
        source: config and weights.
        opts: pairs of key and value that override the config.

    Returns:
        The config, and the detector in evaluation mode with random weights.

    Raises:
        FileNotFoundError: there is no such config or no such file of weights.
        ValueError: the config cannot be read, or ``opts`` do not fit.
    """
    if "://" not in source.weights and not Path(source.weights).is_file():
        raise FileNotFoundError(f"There is no file of weights '{source.weights}'.")
    cfg = load_inference_config(source.config, opts)
    return cfg, build_model(cfg).eval()


def load_weights(model: nn.Module, source: PyramidSource, *, optional: str | None = None) -> None:
    """Load the weights of a detector, whose backbone must get all that it has.

    Args:
        model: what :func:`build_detector` made of ``source``.
        source: config and weights.
        optional: the weights whose names begin so need not be there.

    Raises:
        ValueError: the file is no checkpoint, or lacks weights of the backbone.
    """
    _CompleteCheckpointer(model, source=source, optional=optional).load(source.weights)


class _CompleteCheckpointer(EFPNCheckpointer):
    """Loads only files that have all that a pyramid needs: random weights make no picture."""

    def __init__(self, model: nn.Module, *, source: PyramidSource, optional: str | None) -> None:
        super().__init__(model)
        self._source = source
        self._optional = optional

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        # In place of making new parts of stock ones: nothing may be made up.
        absent = [key for key in incompatible.missing_keys if key.startswith(_BACKBONE)]
        stock = [key for key in absent if not key.startswith(tuple(_PARTS))]
        if stock:
            raise ValueError(
                f"'{self._source.weights}' lacks {len(stock)} tensors that fit the backbone of "
                f"'{self._source.config}' ({stock[0]} is one): it belongs to another config."
            )
        for part, (name, advice) in _PARTS.items():
            lacking = [key for key in absent if key.startswith(part)]
            if lacking and part != self._optional:
                raise ValueError(
                    f"'{self._source.weights}' lacks fitting weights of {name} of "
                    f"'{self._source.config}' ({lacking[0]} is one): {advice}, and the config "
                    "that it was trained with."
                )
