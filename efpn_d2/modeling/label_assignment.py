"""Assignment of anchors to objects by a similarity other than IoU.

Detectron2 calls IoU as a module global, so the methods that use it are implemented here again. The
labels are still decided by its matcher, from the similarity's values and thresholds.
"""

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from efpn_d2.modeling.box_similarity import Similarity


class SimilarityAssigner:
    """Assign each anchor to the most similar object.

    An anchor below both thresholds is background, one between them is ignored. As in Detectron2,
    the anchors most similar to an object are positive even if their similarity is low; the code of
    the papers requires 0.3, as for IoU. An object whose similarities are all rounded to 0 has no
    such anchor.
    """

    def __init__(self, similarity: Similarity) -> None:
        """
        Args:
            similarity: the similarity with its thresholds.
        """
        self.similarity = similarity
        self._matcher = _Matcher(
            list(similarity.thresholds), [0, -1, 1], allow_low_quality_matches=True
        )

    @torch.no_grad()
    def __call__(self, objects: Boxes, anchors: Boxes) -> tuple[Tensor, Tensor]:
        """Return the labels of an image's R anchors, and their objects.

        Args:
            objects: objects of the image; may be empty.
            anchors: anchors of all levels, in pixels of the network's input.

        Returns:
            (R,) int8: 1 object, 0 background, -1 ignored; and (R,) int64, the index of the most
            similar object, 0 without objects.
        """
        quality = retry_if_cuda_oom(self.similarity)(objects.tensor, anchors.tensor)
        matches, labels = retry_if_cuda_oom(self._matcher)(quality)
        # retry_if_cuda_oom() may have moved a large matrix to the CPU.
        return labels.to(anchors.device), matches.to(anchors.device)

    def label_for_rpn(
        self, anchors: Boxes, image: Instances, boundary_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Label one image's anchors as ``RPN.label_and_sample_anchors`` does before sampling.

        Args:
            anchors: R anchors of all levels.
            image: has ``gt_boxes``.
            boundary_thresh: anchors that exceed the image by more pixels are ignored; negative:
                none.

        Returns:
            (R,) labels 1, 0 and -1, and (R, 4) boxes of the objects.
        """
        labels, matches = self(image.gt_boxes, anchors)
        if boundary_thresh >= 0:
            labels[~anchors.inside_box(image.image_size, boundary_thresh)] = -1
        return labels, _matched_boxes(image.gt_boxes, matches)

    def label_for_retinanet(
        self, anchors: Boxes, image: Instances, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Label one image's anchors as ``RetinaNet.label_anchors`` does.

        Args:
            anchors: R anchors of all levels.
            image: has ``gt_boxes`` and ``gt_classes``.
            num_classes: K.

        Returns:
            (R,) classes, K for background and -1 for ignored anchors; (R, 4) boxes of the objects.
        """
        labels, matches = self(image.gt_boxes, anchors)
        classes = torch.full_like(matches, num_classes)
        classes[labels == -1] = -1
        positive = labels == 1
        classes[positive] = image.gt_classes[matches[positive]]
        return classes, _matched_boxes(image.gt_boxes, matches)


class _Matcher(Matcher):
    """Detectron2's matcher, for values that underflow."""

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Skip objects whose values are all 0; the base class would match all anchors to them."""
        seen = match_quality_matrix.amax(dim=1) > 0
        if not seen.all():
            match_quality_matrix = match_quality_matrix[seen]
        super().set_low_quality_matches_(match_labels, match_quality_matrix)


def _matched_boxes(objects: Boxes, matches: Tensor) -> Tensor:
    """Return (R, 4) boxes of the objects with indices ``matches``; zeros without objects."""
    if len(objects) == 0:
        return objects.tensor.new_zeros(len(matches), 4)
    return objects.tensor[matches]
