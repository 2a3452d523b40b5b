"""RPN with optional proposals on P'2, assignment by a similarity, and DCLoss."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.config import require_node
from efpn_d2.modeling.box_similarity import similarity_settings
from efpn_d2.modeling.checks import check_features, differs_in_width
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.gradient_balance import (
    balance_dense_losses,
    build_gradient_balance,
    dense_positives,
)
from efpn_d2.modeling.label_assignment import SimilarityAssigner
from efpn_d2.modeling.lazy import queries_p2_prime
from efpn_d2.modeling.lazy_rpn_head import LazyRPNHead  # noqa: F401  registers it
from efpn_d2.modeling.small_dense_heads import EFPNRPNHead  # noqa: F401  registers it


@PROPOSAL_GENERATOR_REGISTRY.register()
class EFPNRPN(RPN):
    """Detectron2's RPN; with ``MODEL.EFPN.RPN_ON_P2_PRIME`` it also reads ``p2_prime``.

    All levels share the head, whose shape is unchanged, so stock RPN weights fit; a P'2 with fewer
    channels has its own head in :class:`EFPNRPNHead`. [ours; the paper proposes on the stock
    levels]

    With ``MODEL.EFPN_BS.DCLOSS_ENABLED`` it has DCLoss. [reconstruction from the abstract of
    E-FPN-BS] ``MODEL.EFPN.SIMILARITY`` selects the similarity by which anchors are assigned to
    objects.
    """

    @configurable
    def __init__(
        self,
        *,
        gradient_balance: nn.ModuleDict | None = None,
        assigner: SimilarityAssigner | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            gradient_balance: see :func:`build_gradient_balance`.
            assigner: assigns anchors to objects; None: by IoU, as in the base class.
            kwargs: see Detectron2's ``RPN``.
        """
        super().__init__(**kwargs)
        self.gradient_balance = gradient_balance
        self.assigner = assigner

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: if a listed feature does not exist, P'2 has a different number of anchors
                per cell than the levels with which it shares a head, or the configured head cannot
                read a P'2 with fewer channels. See also :func:`check_config`,
                :func:`build_gradient_balance` and :func:`similarity_settings`.
            KeyError: if ``add_efpn_config`` was not called.
        """
        check_config(cfg)
        if require_node(cfg, "MODEL.EFPN").RPN_ON_P2_PRIME:
            cfg = _with_p2_prime(cfg)
        names = cfg.MODEL.RPN.IN_FEATURES
        check_features("MODEL.RPN.IN_FEATURES", names, input_shape)
        cfg = _with_head_of_p2_prime(cfg, [input_shape[name] for name in names])
        similarity = similarity_settings(cfg, "rpn")
        return {
            **super().from_config(cfg, input_shape),
            "gradient_balance": build_gradient_balance(cfg, "rpn"),
            "assigner": SimilarityAssigner(similarity) if similarity else None,
        }

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label anchors as the base class does, or by a similarity."""
        if self.assigner is None:
            return super().label_and_sample_anchors(anchors, gt_instances)
        of_all_levels = Boxes.cat(anchors)
        labels, boxes = [], []
        for image in gt_instances:
            label, matched = self.assigner.label_for_rpn(
                of_all_levels, image, self.anchor_boundary_thresh
            )
            labels.append(self._subsample_labels(label))
            boxes.append(matched)
        return labels, boxes

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses of the base class, balanced if DCLoss is enabled."""
        logits, deltas = pred_objectness_logits, pred_anchor_deltas
        losses = super().losses(anchors, logits, gt_labels, deltas, gt_boxes)
        if self.gradient_balance is None:
            return losses
        positive = torch.stack(gt_labels) == 1
        found = dense_positives(positive, anchors, logits, deltas, gt_boxes)

        def cls_loss(logits: Tensor, rows: Tensor) -> Tensor:
            """Sum over the anchors ``rows``, which are all assigned to objects."""
            ones = torch.ones_like(logits)
            return F.binary_cross_entropy_with_logits(logits, ones, reduction="sum")

        normalizer = self.batch_size_per_image * len(gt_labels)
        names = ("loss_rpn_cls", "loss_rpn_loc")
        return balance_dense_losses(
            self, names, losses, cls_loss, found, normalizer, self.loss_weight
        )


def _with_p2_prime(cfg: CfgNode) -> CfgNode:
    """Copy ``cfg`` and add P'2 with its own anchors as the RPN's first level."""
    names = list(cfg.MODEL.RPN.IN_FEATURES)
    if "p2_prime" in names:
        raise ValueError(
            "MODEL.RPN.IN_FEATURES names p2_prime, and MODEL.EFPN.RPN_ON_P2_PRIME would add it "
            "again: remove it from the list, or set the key False and list all anchors."
        )
    # A single entry applies to all levels in Detectron2's anchor generator.
    sizes = _per_level(cfg.MODEL.ANCHOR_GENERATOR.SIZES, len(names))
    ratios = _per_level(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS, len(names))
    own_sizes = list(cfg.MODEL.EFPN.P2_PRIME_ANCHOR_SIZES)
    if not own_sizes or not all(isinstance(size, int | float) for size in own_sizes):
        raise ValueError(
            f"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES is {own_sizes}: it is for a single level, so use "
            "one or more sizes without inner brackets, like [16]."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.RPN.IN_FEATURES = ["p2_prime", *names]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [own_sizes, *sizes]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [ratios[0], *ratios]
    return cfg


def _with_head_of_p2_prime(cfg: CfgNode, shapes: list[ShapeSpec]) -> CfgNode:
    """Return ``cfg`` with an RPN head that can read features of ``shapes``."""
    anchors = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    own = cfg.clone()
    own.defrost()
    if differs_in_width(shapes):
        if cfg.MODEL.RPN.HEAD_NAME not in ("StandardRPNHead", "EFPNRPNHead"):
            raise ValueError(
                f"MODEL.RPN.HEAD_NAME is {cfg.MODEL.RPN.HEAD_NAME}, but P'2 has "
                f"{shapes[0].channels} channels and the other levels {shapes[1].channels}, which "
                "one head cannot read: set it to StandardRPNHead."
            )
        own.MODEL.RPN.HEAD_NAME = "EFPNRPNHead"
    elif cfg.MODEL.EFPN.RPN_ON_P2_PRIME and len(anchors[0]) != len(anchors[1]):
        raise ValueError(
            f"MODEL.EFPN.P2_PRIME_ANCHOR_SIZES has {len(anchors[0])} sizes, but the other levels "
            f"have {len(anchors[1])} (MODEL.ANCHOR_GENERATOR.SIZES) and all share one RPN head: "
            f"use {len(anchors[1])}."
        )
    elif queries_p2_prime(cfg):
        own.MODEL.RPN.HEAD_NAME = "LazyRPNHead"
    return own


def _per_level(values: list[list[float]], num_levels: int) -> list[list[float]]:
    return list(values) * num_levels if len(values) == 1 else list(values)
