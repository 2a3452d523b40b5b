"""By which rules a report's numbers are made, and how they are named on the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS, AreaBin, CocoProtocol
from efpn_d2.evaluation.size_bins import SizeBin, size_bins
from efpn_d2.utils.size_labels import size_label, size_labels


@dataclass(frozen=True)
class ReportRules:
    """Rules of AP and AR, and the size bins of everything else.

    Args:
        coco: the protocol of AP and AR. Its first IoU threshold is also the least overlap of a
            found object in every other part of the report, its last limit that of detections per
            image and class.
        edges: ascending edges of the bins that objects and errors are counted in, size =
            sqrt(area) in pixels of the annotation, each without its upper end; the last bin has
            none.
    """

    coco: CocoProtocol
    edges: tuple[float, ...]

    @property
    def bins(self) -> list[SizeBin]:
        """The size bins.

        Raises:
            ValueError: the edges are not ascending.
        """
        return size_bins(self.edges)

    @property
    def bounds(self) -> list[float]:
        """The edges and infinity."""
        return [*self.edges, math.inf]

    @property
    def max_dets(self) -> int:
        """How many detections per image and class count, best scores first."""
        return self.coco.max_dets[-1]

    @property
    def iou(self) -> float:
        """The least overlap of a found object."""
        return self.coco.iou_thresholds[0]

    def changed(self, edges: Sequence[float] = (), max_dets: int | None = None) -> "ReportRules":
        """The rules with other size bins, and another limit of detections, where given.

        Raises:
            ValueError: the edges are not ascending, or the limit is not above 0.
        """
        coco = self.coco.changed(max_dets=(max_dets,) if max_dets is not None else ())
        if not edges:
            return replace(self, coco=coco)
        bins = tuple(size_bin.area_bin for size_bin in size_bins(edges))
        ranges = ", ".join(size_labels(edges))
        note = f"size bins {ranges} in place of its own"
        coco = replace(coco, bins=bins, notes=(*coco.notes, note))
        return ReportRules(coco, tuple(map(float, edges)))


def area_ends(area: AreaBin) -> tuple[float, float]:
    """A bin of areas as sizes: the square root of its ends, infinity where it has none."""
    return math.sqrt(area.low), math.sqrt(area.high) if area.is_bounded else math.inf


def report_rules(coco: CocoProtocol) -> ReportRules:
    """Those by a protocol of the COCO family, the bins without overlap and from 0 on."""
    ends = {round(end, 6) for area in coco.bins for end in area_ends(area)}
    return ReportRules(coco, (0.0, *sorted(ends - {math.inf})[1:]))


REPORT_RULES = {name: report_rules(coco) for name, coco in COCO_PROTOCOLS.items()}
# What a report takes if nothing is said: COCO's rules, looked at where small objects differ.
REPORT_RULES["small"] = REPORT_RULES["coco"].changed(edges=(0, 8, 16, 32, 96))


def bin_text(size_bin: SizeBin) -> str:
    """A size bin as the page names it."""
    return size_label(size_bin.low, size_bin.high)


def area_text(area: AreaBin) -> str:
    """A protocol's bin of areas as the page names it, by the square root."""
    low, high = area_ends(area)
    if low <= 1 and math.isinf(high):
        return "all sizes"
    name = "" if area.name.startswith("_") or not area.name else f"{area.key}: "
    return name + size_label(low, high)
