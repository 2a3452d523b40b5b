"""FPN on slices, a row of the ablation that is only evaluated."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

BORDER = 0.5  # px


@META_ARCH_REGISTRY.register()
class SlicedRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` on the image and on its 2 x 2 quarters, each at twice the scale.

    One NMS per class joins the detections. A quarter's detection that ends at another quarter may
    be a part of an object, which the whole image shows; it is dropped.
    """

    @configurable
    def __init__(self, *, nms_threshold: float, max_detections: int, **kwargs: Any) -> None:
        """
        Args:
            nms_threshold: IoU above which the NMS drops a detection.
            max_detections: per image.
            kwargs: those of ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().from_config(cfg),
            "nms_threshold": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """As ``GeneralizedRCNN`` at inference."""
        return [{"instances": self._detect(x)} for x in batched_inputs]

    def _detect(self, inputs: dict[str, Any]) -> Instances:
        image: Tensor = inputs["image"]
        corners = [(row, column) for row in (0, 1) for column in (0, 1)]
        parts = [self._detect_in(image)]
        parts += [self._detect_in_quarter(image, row, column) for row, column in corners]
        found = Instances.cat(parts)
        boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
        kept = batched_nms(boxes, scores, classes, self.nms_threshold)[: self.max_detections]
        height, width = image.shape[-2:]
        return detector_postprocess(
            found[kept], inputs.get("height", height), inputs.get("width", width)
        )

    def _detect_in(self, image: Tensor) -> Instances:
        return super().forward([{"image": image}])[0]["instances"]

    def _detect_in_quarter(self, image: Tensor, row: int, column: int) -> Instances:
        """Detections in pixels of the image."""
        height, width = (side // 2 for side in image.shape[-2:])
        top, left = row * height, column * width
        quarter = image[:, top : top + height, left : left + width].float()
        found = self._detect_in(F.interpolate(quarter[None], scale_factor=2, mode="bilinear")[0])
        boxes = found.pred_boxes.tensor / 2
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        cut_x = x1 > width - BORDER if column == 0 else x0 < BORDER
        cut_y = y1 > height - BORDER if row == 0 else y0 < BORDER
        moved = Instances(
            tuple(image.shape[-2:]),
            pred_boxes=Boxes(boxes + boxes.new_tensor([left, top, left, top])),
            scores=found.scores,
            pred_classes=found.pred_classes,
        )
        return moved[~(cut_x | cut_y)]
