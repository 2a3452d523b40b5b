"""By which rules a report's numbers are made, and how they are named on the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from efpn_d2.evaluation.coco_protocols import PRESETS, AreaBin, CocoProtocol
from efpn_d2.evaluation.size_bins import SizeBin, size_bins


@dataclass(frozen=True)
class ReportProtocol:
    """Rules of AP and AR, and the size bins of everything else.

    Args:
        rules: of AP and AR. Its first IoU threshold is also the least overlap of a found object in
            every other part of the report, its last limit that of detections per image and class.
        edges: ascending edges of the bins that objects and errors are counted in, size =
            sqrt(area) in pixels of the annotation, each without its upper end; the last bin has
            none.
    """

    rules: CocoProtocol
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
        return self.rules.max_dets[-1]

    @property
    def iou(self) -> float:
        """The least overlap of a found object."""
        return self.rules.iou_thresholds[0]

    def changed(self, edges: Sequence[float] = (), max_dets: int | None = None) -> "ReportProtocol":
        """The protocol with other size bins, and another limit of detections, where given.

        Raises:
            ValueError: the edges are not ascending, or the limit is not above 0.
        """
        rules = self.rules.changed(max_dets=(max_dets,) if max_dets is not None else ())
        if not edges:
            return replace(self, rules=rules)
        bins = tuple(size_bin.area_bin for size_bin in size_bins(edges))
        ranges = ", ".join(_range_text(*pair) for pair in pairwise([*edges, math.inf]))
        note = f"size bins {ranges} in place of its own"
        rules = replace(rules, bins=bins, notes=(*rules.notes, note))
        return ReportProtocol(rules, tuple(map(float, edges)))


def _range_text(low: float, high: float) -> str:
    if math.isinf(high):
        return f"{low:.4g} px and more"
    return f"{low:.4g} to {high:.4g} px"


def area_ends(area: AreaBin) -> tuple[float, float]:
    """A bin of areas as sizes: the square root of its ends, infinity where it has none."""
    return math.sqrt(area.low), math.sqrt(area.high) if area.is_bounded else math.inf


def report_protocol(rules: CocoProtocol) -> ReportProtocol:
    """The report by a protocol of the COCO family, its bins without overlap and from 0 on."""
    ends = {round(end, 6) for area in rules.bins for end in area_ends(area)}
    return ReportProtocol(rules, (0.0, *sorted(ends - {math.inf})[1:]))


PROTOCOLS = {name: report_protocol(rules) for name, rules in PRESETS.items()}
# What a report takes if nothing is said: COCO's rules, looked at where small objects differ.
PROTOCOLS["small"] = PROTOCOLS["coco"].changed(edges=(0, 8, 16, 32, 96))


def bin_text(size_bin: SizeBin) -> str:
    """A size bin as the page names it."""
    return _range_text(size_bin.low, size_bin.high)


def area_text(area: AreaBin) -> str:
    """A protocol's bin of areas as the page names it, by the square root."""
    low, high = area_ends(area)
    if low <= 1 and math.isinf(high):
        return "all sizes"
    name = "" if area.name.startswith("_") or not area.name else f"{area.key}: "
    return name + _range_text(low, high)
