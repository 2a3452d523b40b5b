"""Two-stage detector with the auxiliary losses of its pyramid."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.mask_supervision import (
    MaskSupervision,
    build_mask_supervision,
    learns_masks,
)

Losses = dict[str, Tensor]


@META_ARCH_REGISTRY.register()
class EFPNRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` with the loss and the log of FBSM's masks.

    It is bitwise equal to ``GeneralizedRCNN`` without ``MODEL.EFPN_BS.FBSM_ENABLED``, and always
    has its state dict and inference. [reconstruction from the abstract of E-FPN-BS]
    """

    @configurable
    def __init__(self, *, mask_supervision: MaskSupervision | None = None, **kwargs: Any) -> None:
        """
        Args:
            mask_supervision: see :func:`build_mask_supervision`.
            kwargs: see ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.mask_supervision = mask_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            ValueError: see :func:`check_config` and :func:`build_mask_supervision`.
            KeyError: if ``add_efpn_config`` was not called.
        """
        check_config(cfg)
        ret = super().from_config(cfg)
        return {**ret, "mask_supervision": build_mask_supervision(cfg, ret["backbone"])}

    def forward(self, batched_inputs: list[dict[str, Tensor]]) -> Any:
        """Run ``GeneralizedRCNN``, in training with the losses of FBSM's masks."""
        # Scripts do not support super().
        if not torch.jit.is_scripting() and self.training:
            return self._losses(batched_inputs)
        return self.inference(batched_inputs)

    @torch.jit.unused
    def _losses(self, batched_inputs: list[dict[str, Any]]) -> Losses:
        if self.mask_supervision is None or not learns_masks(self.backbone):
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        instances = self._instances(batched_inputs)
        features, mask_logits = self.backbone.forward_with_masks(images.tensor)
        of_proposals, of_boxes = self._detection_losses(batched_inputs, images, features, instances)
        return {**of_boxes, **of_proposals, **self.mask_supervision(mask_logits, instances)}

    def _instances(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        return [x["instances"].to(self.device) for x in batched_inputs]

    def _detection_losses(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: dict[str, Tensor],
        instances: list[Instances],
    ) -> tuple[Losses, Losses]:
        """Compute the losses of the proposal generator and of the ROI heads."""
        losses: Losses = {}
        if self.proposal_generator is None:
            proposals = [x["proposals"].to(self.device) for x in batched_inputs]
        else:
            proposals, losses = self.proposal_generator(images, features, instances)
        _, detector_losses = self.roi_heads(images, features, proposals, instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return losses, detector_losses
