"""Multi-scale test: merge the detections of an image at several scales [paper Table VI]."""

import contextlib
from collections.abc import Callable
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
    """Detectron2's ``GeneralizedRCNNWithTTA`` with boxes routed at each scale.

    ``TEST.AUG`` has the scales and the flip. Boxes are routed at each scale: for box heads, in
    every stage of a cascade, and for masks, which are predicted for the merged boxes at each scale
    and averaged. ``MULTI_SCALE_TEST.ROUTE_BY`` selects the rule:

    * ``input``: by the size in pixels of the network's input, as in training. ``SMALL_BOX_SIZE``,
      FPN's levels and the anchors do not scale, so an object is read from P'2 at 1x and from P2 at
      2x, which P'2 imitates, and each head reads the sizes of its training.
    * ``object``: the router scales with the image (:meth:`BoxRouter.at_scale`), so P'2 has the same
      objects at every scale, with sizes beyond those of its training. FPN's levels and the anchors
      do not scale.

    In contrast to the core class, only images of the same size are batched together: a small image
    padded to the largest would need as much memory and have a different border.
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
            model: the detector, in evaluation mode; may be wrapped for data parallelism.
            tta_mapper: maps a record to scaled records; None: Detectron2's, by ``TEST.AUG``.
            batch_size: number of images of the same size per batch.

        Raises:
            ValueError: see :func:`check_multi_scale_test`; also if ``model`` is not supported.
        """
        check_multi_scale_test(cfg)
        detector = model.module if isinstance(model, DistributedDataParallel) else model
        if not _is_supported(type(detector)):
            raise ValueError(_unsupported(type(detector).__name__))
        super().__init__(cfg, model, tta_mapper, batch_size)

    def __call__(self, batched_inputs: list[Record]) -> list[Record]:
        """Detect as the detector does, at all scales.

        Args:
            batched_inputs: records with ``image`` (C, H, W) uint8 at the original size, since lost
                pixels cannot be recovered at a larger scale, or with ``file_name``.

        Raises:
            ValueError: if an image is not uint8; Detectron2 would resize it in a different way.
        """
        for record in batched_inputs:
            if "image" in record and record["image"].dtype != torch.uint8:
                raise ValueError(
                    f"The multi-scale test got an image of {record['image'].dtype}, which would be "
                    "resized without smoothing, unlike in training: use uint8."
                )
        return super().__call__(batched_inputs)

    def _batch_inference(
        self, batched_inputs: list[Record], detected_instances: list[Instances] | None = None
    ) -> list[Instances]:
        """Run inference as the base class does, in batches of images of one size."""
        instances = detected_instances or [None] * len(batched_inputs)
        pairs = zip(batched_inputs, instances, strict=True)
        outputs: list[Instances] = []
        for _, group in groupby(pairs, key=lambda pair: pair[0]["image"].shape):
            inputs, known = map(list, zip(*group, strict=True))
            with self._routed_at_scale_of(inputs[0]):
                found = super()._batch_inference(inputs, known if detected_instances else None)
            outputs.extend(found)
        return outputs

    def _routed_at_scale_of(self, record: Record) -> contextlib.AbstractContextManager[None]:
        """Route boxes at the scale of a record, within a context."""
        heads = self.model.roi_heads
        if self.cfg.MULTI_SCALE_TEST.ROUTE_BY == "input" or not isinstance(heads, SmallHeadMixin):
            return contextlib.nullcontext()
        return heads.routed_by(heads.router.at_scale(_scale(record, self.cfg)))


def _scale(record: Record, cfg: CfgNode) -> float:
    """Compute the scale of a record's image relative to the image of the single-scale test."""
    reference = record["height"]
    if cfg.INPUT.MIN_SIZE_TEST > 0:  # otherwise images are not resized
        reference, _ = ResizeShortestEdge.get_output_shape(
            record["height"], record["width"], cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        )
    return record["image"].shape[1] / reference


def check_multi_scale_test(cfg: CfgNode) -> None:
    """Check that the detector of a config supports the multi-scale test, before it is built.

    Raises:
        ValueError: if it does not, or ``TEST.AUG.MIN_SIZES`` or ``MULTI_SCALE_TEST.ROUTE_BY`` is
            invalid.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if not _is_supported(META_ARCH_REGISTRY.get(name)):
        raise ValueError(_unsupported(name))
    for key, what in (("KEYPOINT_ON", "keypoints"), ("LOAD_PROPOSALS", "precomputed proposals")):
        if cfg.MODEL[key]:
            raise ValueError(
                f"The multi-scale test does not support {what}, but MODEL.{key} is True: set "
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
            f"TEST.AUG.MIN_SIZES is {sizes}: list the lengths of the shorter side, each a positive "
            "integer, like (1400, 2800)."
        )


def _is_supported(kind: type) -> bool:
    # PanopticFPN does not predict masks for given boxes.
    return issubclass(kind, GeneralizedRCNN) and not issubclass(kind, PanopticFPN)


def _unsupported(name: str) -> str:
    return (
        "The multi-scale test supports MODEL.META_ARCHITECTURE GeneralizedRCNN and its subclasses, "
        f"but not {name}: set TEST.AUG.ENABLED to False."
    )
