"""Multi-scale test: one image at several scales, whose detections become one [paper Table VI]."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.structures import Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from efpn_d2.config import require_node
from efpn_d2.modeling.roi_heads.small_head import SmallHeadMixin

Record = dict[str, Any]

_ROUTE_BY = ("input", "object")


class EFPNWithTTA(GeneralizedRCNNWithTTA):
    """Detectron2's ``GeneralizedRCNNWithTTA``, in which each scale sees what it would see alone.

    Scales and flip are ``TEST.AUG``'s. Where a box is read from is decided anew at each scale, for
    boxes, in every stage of a cascade, and for masks: the merged boxes are brought back to each
    scale, routed there, and the masks averaged. ``MULTI_SCALE_TEST.ROUTE_BY`` says by what:

    * ``input``: the size in pixels of the network's input, as in training. ``SMALL_BOX_SIZE``,
      FPN's levels and the anchors do not grow with the scale, so an object is read from P'2 at 1x
      and from P2 at 2x, which is what P'2 imitates, and each head meets the sizes it has learned.
    * ``object``: ``SMALL_BOX_SIZE`` grows with the scale, so P'2 has the same objects at every
      scale, up to sizes that its heads have not met in training. FPN's levels and the anchors stay.

    Images of different size are never batched together, as the core class does: padded to the
    largest, a small one would cost as much memory and see another border than by itself.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        tta_mapper: Callable[[Record], list[Record]] | None = None,
        batch_size: int = 3,
    ) -> None:
        """
        Args:
            cfg: a config.
            model: the detector, in eval mode when called; may be wrapped for data parallelism.
            tta_mapper: makes the scaled records of one; None: Detectron2's, by ``TEST.AUG``.
            batch_size: images of the same size that go through the detector together.

        Raises:
            ValueError: see :func:`check_multi_scale_test`, or ``model`` is of another kind.
        """
        check_multi_scale_test(cfg)
        detector = model.module if isinstance(model, DistributedDataParallel) else model
        if not _is_supported(type(detector)):
            raise ValueError(_unsupported(type(detector).__name__))
        super().__init__(cfg, model, tta_mapper, batch_size)

    def __call__(self, batched_inputs: list[Record]) -> list[Record]:
        """As the detector.

        Args:
            batched_inputs: ``image`` should be what the file has and not yet scaled, (C, H, W)
                uint8: pixels that are lost do not come back at a larger scale. Or, in its place,
                ``file_name``.

        Raises:
            ValueError: the pixels are no uint8, for which Detectron2 scales in another way.
        """
        for record in batched_inputs:
            if "image" in record and record["image"].dtype != torch.uint8:
                raise ValueError(
                    f"The multi-scale test got an image of {record['image'].dtype}, which would be "
                    "scaled without smoothing, unlike in training: give it uint8."
                )
        return super().__call__(batched_inputs)

    def _batch_inference(
        self, batched_inputs: list[Record], detected_instances: list[Instances] | None = None
    ) -> list[Instances]:
        """As in the base class, in batches of images of one size."""
        instances = detected_instances or [None] * len(batched_inputs)
        pairs = zip(batched_inputs, instances, strict=True)
        outputs: list[Instances] = []
        for _, group in groupby(pairs, key=lambda pair: pair[0]["image"].shape):
            inputs, known = map(list, zip(*group, strict=True))
            with self._routing_of(inputs[0]):
                found = super()._batch_inference(inputs, known if detected_instances else None)
            outputs.extend(found)
        return outputs

    @contextlib.contextmanager
    def _routing_of(self, record: Record) -> Iterator[None]:
        """The detector as it routes boxes at the scale of a record."""
        heads = self.model.roi_heads
        if self.cfg.MULTI_SCALE_TEST.ROUTE_BY == "input" or not isinstance(heads, SmallHeadMixin):
            yield
            return
        size = heads.small_box_size
        heads.small_box_size = size * _scale(record, self.cfg)
        try:
            yield
        finally:
            heads.small_box_size = size


def _scale(record: Record, cfg: CfgNode) -> float:
    """Pixels of the record's image per pixel that the single-scale test's image has there."""
    reference = record["height"]
    if cfg.INPUT.MIN_SIZE_TEST > 0:  # else images are not scaled
        reference, _ = ResizeShortestEdge.get_output_shape(
            record["height"], record["width"], cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        )
    return record["image"].shape[1] / reference


def check_multi_scale_test(cfg: CfgNode) -> None:
    """Check that a config's detector can be tested at several scales, before it is built.

    Raises:
        ValueError: it cannot, or ``TEST.AUG.MIN_SIZES`` are no sizes.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if not _is_supported(META_ARCH_REGISTRY.get(name)):
        raise ValueError(_unsupported(name))
    for key, what in (("KEYPOINT_ON", "keypoints"), ("LOAD_PROPOSALS", "precomputed proposals")):
        if cfg.MODEL[key]:
            raise ValueError(
                f"The multi-scale test has no {what}, but MODEL.{key} is True: set "
                "TEST.AUG.ENABLED to False."
            )
    route_by = require_node(cfg, "MULTI_SCALE_TEST").ROUTE_BY
    if route_by not in _ROUTE_BY:
        raise ValueError(
            f"MULTI_SCALE_TEST.ROUTE_BY is '{route_by}', which does not exist: use one of "
            f"{', '.join(_ROUTE_BY)}."
        )
    sizes = cfg.TEST.AUG.MIN_SIZES
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"TEST.AUG.MIN_SIZES is {sizes}: give the lengths of the shorter side, each a whole "
            "number above 0, like (1400, 2800)."
        )


def _is_supported(kind: type) -> bool:
    # PanopticFPN finds no masks for given boxes.
    return issubclass(kind, GeneralizedRCNN) and not issubclass(kind, PanopticFPN)


def _unsupported(name: str) -> str:
    return (
        "The multi-scale test is for detectors of MODEL.META_ARCHITECTURE GeneralizedRCNN, not for "
        f"{name}: set TEST.AUG.ENABLED to False."
    )
