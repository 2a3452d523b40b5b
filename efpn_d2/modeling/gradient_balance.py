"""DCLoss in the heads of a detector, and the functions that they share."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.losses import DynamicGradientBalancedLoss
from efpn_d2.losses.dynamic_gradient_balanced import SampleLoss
from efpn_d2.modeling.config_checks import check_config


def build_gradient_balance(cfg: CfgNode, name: str) -> nn.ModuleDict | None:
    """Build DCLoss for the two losses of a head, ``cls`` and ``box``; None if it is disabled.

    Args:
        cfg: a config with ``MODEL.EFPN_BS``.
        name: name of the head, for the log.

    Raises:
        ValueError: see :func:`check_config`; also if a value of the node is out of range.
        KeyError: if ``add_efpn_config`` was not called.
    """
    check_config(cfg)
    node = require_node(cfg, "MODEL.EFPN_BS")
    if not node.DCLOSS_ENABLED:
        return None
    return nn.ModuleDict(
        {
            term: DynamicGradientBalancedLoss(
                alpha=node.DCLOSS_ALPHA,
                momentum=node.DCLOSS_MOMENTUM,
                size_bins=node.DCLOSS_SIZE_BINS,
                min_weight=node.DCLOSS_MIN_WEIGHT,
                max_weight=node.DCLOSS_MAX_WEIGHT,
                # Without "loss", since Detectron2 prints every scalar with "loss" in its name.
                name=f"{name}_{term}",
            )
            for term in ("cls", "box")
        }
    )


def add_corrections(
    losses: dict[str, Tensor],
    corrections: dict[str, Tensor],
    normalizer: float,
    loss_weight: Mapping[str, float],
) -> dict[str, Tensor]:
    """Add corrections to the losses of a head.

    Args:
        losses: scalars, as Detectron2 returns them.
        corrections: results of :class:`DynamicGradientBalancedLoss` by loss.
        normalizer: the number by which the sums over samples in ``losses`` were divided.
        loss_weight: factors of the losses by name; default 1.
    """
    return {
        name: value + (corrections[name] / normalizer * loss_weight.get(name, 1.0)).to(value.dtype)
        for name, value in losses.items()
    }


def object_sizes(boxes: Tensor) -> Tensor:
    """Compute sqrt(w * h) of (R, 4) boxes: (R,)."""
    return Boxes(boxes).area().sqrt()


def box_loss(
    transform: Box2BoxTransform, boxes: Tensor, gt_boxes: Tensor, loss_type: str, beta: float
) -> SampleLoss:
    """Build Detectron2's box regression loss as a function of the deltas (n, 4) of some of R boxes.

    Args:
        transform: converts boxes to deltas.
        boxes: (R, 4).
        gt_boxes: (R, 4), the objects to which the boxes are assigned.
        loss_type: kind of loss.
        beta: beta of smooth L1.
    """

    def loss(deltas: Tensor, rows: Tensor) -> Tensor:
        """Sum the loss over the boxes ``rows`` with these deltas."""
        return _dense_box_regression_loss(
            [boxes[rows]], transform, [deltas[None]], [gt_boxes[rows]], ..., loss_type, beta
        )

    return loss


class DensePositives(NamedTuple):
    """The anchors of a batch that are assigned to an object."""

    #: (R,) or, with classes, (R, K).
    logits: Tensor
    #: (R, 4).
    deltas: Tensor
    #: (R, 4).
    anchors: Tensor
    #: (R, 4), the assigned objects.
    gt_boxes: Tensor


def dense_positives(
    positive: Tensor,
    anchors: list[Boxes],
    logits: list[Tensor],
    deltas: list[Tensor],
    gt_boxes: list[Tensor],
) -> DensePositives:
    """Gather the positives of dense predictions, image by image.

    Args:
        positive: (N, A) bool, for all anchors A of all levels.
        anchors: see ``RPN.losses`` and ``RetinaNet.losses``.
        logits: per level.
        deltas: per level.
        gt_boxes: per image, (A, 4).
    """
    boxes = Boxes.cat(anchors).tensor
    return DensePositives(
        cat(logits, dim=1)[positive],
        cat(deltas, dim=1)[positive],
        torch.cat([boxes[rows] for rows in positive]),
        torch.cat([x[rows] for x, rows in zip(gt_boxes, positive, strict=True)]),
    )


def balance_dense_losses(
    model: RPN | RetinaNet,
    names: tuple[str, str],
    losses: dict[str, Tensor],
    cls_loss: SampleLoss,
    found: DensePositives,
    normalizer: float,
    loss_weight: Mapping[str, float],
) -> dict[str, Tensor]:
    """Balance the losses of an RPN or a RetinaNet.

    Args:
        model: the RPN or RetinaNet, with ``gradient_balance``.
        names: names of its classification and its box loss.
        losses: see :func:`add_corrections`.
        cls_loss: computes the summed classification loss of some of the positives.
        found: the positives.
        normalizer: see :func:`add_corrections`.
        loss_weight: see :func:`add_corrections`.
    """
    sizes = object_sizes(found.gt_boxes)
    regression = box_loss(
        model.box2box_transform,
        found.anchors,
        found.gt_boxes,
        model.box_reg_loss_type,
        model.smooth_l1_beta,
    )
    cls_name, box_name = names
    corrections = {
        cls_name: model.gradient_balance["cls"](cls_loss, found.logits, sizes),
        box_name: model.gradient_balance["box"](regression, found.deltas, sizes),
    }
    return add_corrections(losses, corrections, normalizer, loss_weight)
