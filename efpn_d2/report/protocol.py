"""By which rules a report's numbers are made, and how they are named on the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..evaluation.error_analysis import IOU_THRESHOLDS
from ..evaluation.size_bins import SizeBin, size_bins


@dataclass(frozen=True)
class ReportProtocol:
    """Size bins, detections per image and IoU thresholds of a report.

    Args:
        name: printed on the page.
        edges: ascending edges of the size bins, size = sqrt(area) in pixels of the annotation; the
            last bin has no upper end.
        max_dets: how many detections per image and class count, best scores first.
        iou_thresholds: ascending; AP and AR are means over them. The first one is also the
            least overlap of a found object in every other part of the report.
    """

    name: str
    edges: Sequence[float]
    max_dets: int = 100
    iou_thresholds: tuple[float, ...] = field(default=IOU_THRESHOLDS)

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


PROTOCOLS = {
    "coco": ReportProtocol("COCO", (0, 32, 96)),
    "aitod": ReportProtocol("AI-TOD", (0, 8, 16, 32), max_dets=1500),
    "small": ReportProtocol("COCO's, with bins for small objects", (0, 8, 16, 32, 96)),
}


def bin_text(size_bin: SizeBin) -> str:
    """A size bin as the page names it."""
    if math.isinf(size_bin.high):
        return f"{size_bin.low:g} px and more"
    return f"{size_bin.low:g} to {size_bin.high:g} px"
