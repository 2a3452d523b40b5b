"""A data set and a detector, compared: one function that asks everything else in this package."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from efpn_d2.analysis.advice import (
    ScaleAdvice,
    Settings,
    advise_anchor_sizes,
    advise_detections,
    advise_input_scale,
    advise_small_box_size,
    present_anchor_sizes,
)
from efpn_d2.analysis.anchor_search import EQUAL, octave_weights, overlap_score
from efpn_d2.analysis.anchors import Overlaps, measure_overlaps
from efpn_d2.analysis.detector import DetectorGeometry, describe_detector
from efpn_d2.analysis.objects import ObjectTable, read_objects
from efpn_d2.analysis.similarity import SimilarityConstants, similarity_constants


@dataclass(frozen=True)
class DatasetAnalysis:
    """What a config does with a data set's objects, and what it would do with other settings."""

    name: str
    cfg: CfgNode
    objects: ObjectTable
    geometry: DetectorGeometry
    overlaps: Overlaps
    settings: Settings
    """To be merged onto the config."""
    advised_geometry: DetectorGeometry
    advised_overlaps: Overlaps
    scale: ScaleAdvice
    """Not part of the settings: another scale costs time and asks for other anchors."""

    def anchor_scores(self) -> tuple[float, float]:
        """What the anchors of the config and the advised ones have by :func:`overlap_score`."""
        return (
            _score(self.objects, self.geometry, self.overlaps),
            _score(self.objects, self.geometry, self.advised_overlaps),
        )

    def similarity_constants(self) -> tuple[SimilarityConstants, SimilarityConstants]:
        """With the anchors of the config and the advised ones; no part of the settings."""
        return (
            similarity_constants(self.objects, self.geometry),
            similarity_constants(self.objects, self.advised_geometry),
        )

    @property
    def keeps_anchors(self) -> bool:
        """Whether the config's own anchors are the advised ones."""
        own = present_anchor_sizes(self.cfg, self.geometry)
        advised = self.settings["MODEL"]
        return all(advised[node].items() >= keys.items() for node, keys in own.items())


def analyze_dataset(
    records: Sequence[dict[str, Any]], cfg: CfgNode, name: str = "The data set"
) -> DatasetAnalysis:
    """Compare a data set with a config's detector at ``INPUT.MIN_SIZE_TEST``.

    Args:
        records: the data set in Detectron2's format.
        cfg: a complete config; not changed.
        name: of the data set, for messages.

    Raises:
        ValueError: see :func:`read_objects` and :func:`describe_detector`.
    """
    objects = read_objects(records, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, name)
    geometry = describe_detector(cfg)
    overlaps = measure_anchors(objects, geometry)
    settings = _advise(cfg, geometry, objects)
    advised_geometry, advised_overlaps = _with_settings(cfg, settings, objects)
    now = _score(objects, geometry, overlaps)
    if _score(objects, geometry, advised_overlaps) <= now + EQUAL:
        # The search knows only sizes that divide an octave, which the config's need not do.
        for node, keys in present_anchor_sizes(cfg, geometry).items():
            settings["MODEL"][node].update(keys)
        advised_geometry, advised_overlaps = _with_settings(cfg, settings, objects)
    return DatasetAnalysis(
        name=name,
        cfg=cfg,
        objects=objects,
        geometry=geometry,
        overlaps=overlaps,
        settings=settings,
        advised_geometry=advised_geometry,
        advised_overlaps=advised_overlaps,
        scale=advise_input_scale(cfg, geometry, objects),
    )


def _with_settings(
    cfg: CfgNode, settings: Settings, objects: ObjectTable
) -> tuple[DetectorGeometry, Overlaps]:
    """The detector that a config describes with some settings, and its overlaps."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_other_cfg(CfgNode(settings))
    geometry = describe_detector(cfg)
    return geometry, measure_anchors(objects, geometry)


def _score(objects: ObjectTable, geometry: DetectorGeometry, overlaps: Overlaps) -> float:
    weights = octave_weights(objects.sizes)
    return float(overlap_score(overlaps.best, geometry.thresholds, weights))


def _advise(cfg: CfgNode, geometry: DetectorGeometry, objects: ObjectTable) -> Settings:
    model = advise_anchor_sizes(cfg, geometry, objects)
    if geometry.small_box_size:
        size = advise_small_box_size(objects.sizes)
        model.setdefault("EFPN", {})["SMALL_BOX_SIZE"] = size
    detections = advise_detections(objects.objects_per_image)
    if geometry.pooled and 2 * detections > cfg.MODEL.RPN.POST_NMS_TOPK_TEST:
        # No head can find more objects than it is shown.
        model["RPN"] = {"POST_NMS_TOPK_TEST": 2 * detections}
    return {"MODEL": model, "TEST": {"DETECTIONS_PER_IMAGE": detections}}


def measure_anchors(objects: ObjectTable, geometry: DetectorGeometry) -> Overlaps:
    """What a detector's anchors offer to each object; its upper IoU threshold counts."""
    return measure_overlaps(
        objects.boxes,
        objects.image_sizes[objects.images],
        geometry.anchors,
        geometry.size_divisibility,
        geometry.thresholds[1],
    )
