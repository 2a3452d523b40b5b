"""Rules of a report's numbers, and their names on the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS, AreaBin, CocoProtocol
from efpn_d2.evaluation.size_bins import SizeBin, size_bins
from efpn_d2.utils.size_labels import size_label, size_labels


@dataclass(frozen=True)
class ReportRules:
    """Rules of AP and AR, and the size bins of everything else.

    Attributes:
        coco: the protocol of AP and AR. All other parts of the report use its first IoU threshold
            as the minimum IoU of a found object, and its last limit of detections per image and
            class.
        edges: ascending edges of the half-open bins of objects and errors by sqrt(annotated area)
            in pixels; the last bin has no upper end.
    """

    coco: CocoProtocol
    edges: tuple[float, ...]

    @property
    def bins(self) -> list[SizeBin]:
        """The size bins.

        Raises:
            ValueError: if the edges are not ascending.
        """
        return size_bins(self.edges)

    @property
    def bounds(self) -> list[float]:
        """The edges and infinity."""
        return [*self.edges, math.inf]

    @property
    def max_dets(self) -> int:
        """Limit of detections per image and class, best scores first."""
        return self.coco.max_dets[-1]

    @property
    def iou(self) -> float:
        """Minimum IoU of a found object."""
        return self.coco.iou_thresholds[0]

    def changed(self, edges: Sequence[float] = (), max_dets: int | None = None) -> "ReportRules":
        """Return the rules with other size bins and another limit of detections, if given.

        Args:
            edges: see the class; empty: unchanged.
            max_dets: limit of detections; None: unchanged.

        Raises:
            ValueError: if the edges are not ascending, or the limit is not above 0.
        """
        coco = self.coco.changed(max_dets=(max_dets,) if max_dets is not None else ())
        if not edges:
            return replace(self, coco=coco)
        bins = tuple(size_bin.area_bin for size_bin in size_bins(edges))
        ranges = ", ".join(size_labels(edges))
        note = f"size bins {ranges} instead of its own"
        coco = replace(coco, bins=bins, notes=(*coco.notes, note))
        return ReportRules(coco, tuple(map(float, edges)))


def area_ends(area: AreaBin) -> tuple[float, float]:
    """Return the ends of a bin of areas as sizes: their square roots, or infinity."""
    return math.sqrt(area.low), math.sqrt(area.high) if area.is_bounded else math.inf


def report_rules(coco: CocoProtocol) -> ReportRules:
    """Build the rules of a COCO-family protocol, with bins from 0 on that do not overlap."""
    ends = {round(end, 6) for area in coco.bins for end in area_ends(area)}
    return ReportRules(coco, (0.0, *sorted(ends - {math.inf})[1:]))


REPORT_RULES = {name: report_rules(coco) for name, coco in COCO_PROTOCOLS.items()}
# Default rules of a report: COCO's, with bins that resolve small objects.
REPORT_RULES["small"] = REPORT_RULES["coco"].changed(edges=(0, 8, 16, 32, 96))


def bin_text(size_bin: SizeBin) -> str:
    """Return the name of a size bin on the page."""
    return size_label(size_bin.low, size_bin.high)


def area_text(area: AreaBin) -> str:
    """Return the name of a protocol's bin of areas on the page, by the square root."""
    low, high = area_ends(area)
    if low <= 1 and math.isinf(high):
        return "all sizes"
    name = "" if area.name.startswith("_") or not area.name else f"{area.key}: "
    return name + size_label(low, high)
