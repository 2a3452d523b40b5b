"""Protocols of the COCO family: object-size bins, IoU thresholds and limits of detections.

Bins are in square pixels of the annotated ``area`` and closed at both ends, as in COCO's own code,
so an object of exactly 32 * 32 is in two of its bins.

Omissions and unverified parts:

* ``aitod``: complete, except AP at IoU 0.25: the benchmark's tool prints it, but as -1, since its
  thresholds begin at 0.5.
* ``sodad``: "AP" covers only objects of up to 32 * 32 pixels. This and the bins follow the code of
  SODA-A, the aerial half of the same benchmark; the limits of 100, 300 and 1000 detections come
  from a port of SODA-D's. Neither could be verified with SODA-D's own code. Merging patches is left
  to the detector.
* ``tinyperson``: boxes marked "ignore" or "uncertain", and objects outside a bin, excuse any number
  of detections on them, by the overlap relative to the detection's area. The benchmark's miss rate
  is not computed, and merging tiles is left to the detector. The limit is 200 detections as in the
  benchmark's first code; a later version uses 1000.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from efpn_d2.utils.size_labels import size_label

LARGEST_AREA = 1e5**2
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class AreaBin:
    """Objects with ``low <= area <= high`` in square pixels.

    Attributes:
        name: suffix of metric names, e.g. "s" in "APs".
        low: smallest area.
        high: largest area; 1e5 * 1e5: no upper end.
        ious: single IoU thresholds at which the AP is reported too.
    """

    name: str
    low: float
    high: float
    ious: tuple[float, ...] = ()

    @property
    def key(self) -> str:
        """The name without the separator that it has in metric names."""
        return self.name.lstrip("_")

    @property
    def is_bounded(self) -> bool:
        """Whether there is an upper end; COCO's code writes 1e5 * 1e5 for none."""
        return self.high < LARGEST_AREA

    def text(self, unit: Callable[[float], float] = float) -> str:
        """Describe the range of areas, e.g. "64 to 256", converted by ``unit``."""
        high = unit(self.high) if self.is_bounded else math.inf
        return size_label(unit(self.low), high, "range")


@dataclass(frozen=True)
class CocoProtocol:
    """Rules by which detections are evaluated.

    Attributes:
        name: printed with every result.
        bins: object sizes that are reported separately.
        overall: the objects that "AP" and "AR" cover.
        iou_thresholds: AP and AR are means over these.
        max_dets: limits of detections per image and class, ascending; AP uses the last.
        olrp: whether to compute the optimal localization-recall-precision error at IoU 0.5.
        ignore_fields: annotations that set one of these fields are treated as crowds.
        excuse_outside: whether objects outside a bin are treated as crowds in it. Otherwise each
            marks one detection, by IoU.
        notes: remarks that a reader of the numbers needs.
    """

    name: str
    bins: tuple[AreaBin, ...]
    overall: AreaBin = AreaBin("", 0.0, LARGEST_AREA, ious=(0.5, 0.75))
    iou_thresholds: tuple[float, ...] = COCO_IOUS
    max_dets: tuple[int, ...] = (1, 10, 100)
    olrp: bool = False
    ignore_fields: tuple[str, ...] = ()
    excuse_outside: bool = False
    notes: tuple[str, ...] = ()

    @property
    def areas(self) -> tuple[AreaBin, ...]:
        """The range of all objects, then the bins."""
        return (self.overall, *self.bins)

    def changed(
        self,
        *,
        bins: Sequence[AreaBin] = (),
        iou_thresholds: Sequence[float] = (),
        max_dets: Sequence[int] = (),
    ) -> "CocoProtocol":
        """Return the protocol with further bins, and with other thresholds or limits if given.

        Args:
            bins: appended to the protocol's bins.
            iou_thresholds: ascending, in (0, 1]; empty: unchanged.
            max_dets: ascending; empty: unchanged.

        Raises:
            ValueError: if the values are not ascending or out of range.
        """
        ious, limits = np.array(iou_thresholds, dtype=float), np.array(max_dets)
        if (ious <= 0).any() or (ious > 1).any() or (np.diff(ious) <= 0).any():
            raise ValueError(
                f"EVALUATION.IOU_THRESHOLDS {list(iou_thresholds)} must be ascending and in (0, 1]."
            )
        if (limits < 1).any() or (np.diff(limits) <= 0).any():
            raise ValueError(
                f"EVALUATION.MAX_DETS {list(max_dets)} must be ascending numbers of detections."
            )
        notes = []
        if len(ious) and tuple(iou_thresholds) != self.iou_thresholds:
            notes.append("IoU thresholds are set by EVALUATION.IOU_THRESHOLDS")
        if len(limits) and tuple(max_dets) != self.max_dets:
            notes.append("limits of detections are set by EVALUATION.MAX_DETS")
        return replace(
            self,
            bins=(*self.bins, *bins),
            iou_thresholds=tuple(map(float, iou_thresholds)) or self.iou_thresholds,
            max_dets=tuple(map(int, max_dets)) or self.max_dets,
            notes=(*self.notes, *notes),
        )

    def describe(self, backend: str) -> str:
        """Describe the rules in one line of text."""
        ious = ", ".join(f"{iou:.4g}" for iou in self.iou_thresholds)
        bins = ", ".join(f"{b.key or 'all'} {b.text()}" for b in self.areas)
        rules = [
            f"protocol {self.name}",
            f"maxDets {', '.join(map(str, self.max_dets))}",
            f"IoU {ious}",
            f"areas in square pixels: {bins}",
            f"backend {backend}",
        ]
        return "; ".join([*rules, *self.notes])


def _tiny_person_bin(name: str, low: float, high: float) -> AreaBin:
    return AreaBin(name, low**2, high**2, ious=(0.25, 0.5, 0.75))


COCO_PROTOCOLS = {
    "coco": CocoProtocol(
        "coco",
        (
            AreaBin("s", 0.0, 32.0**2),
            AreaBin("m", 32.0**2, 96.0**2),
            AreaBin("l", 96.0**2, LARGEST_AREA),
        ),
    ),
    "aitod": CocoProtocol(
        "aitod",
        (
            AreaBin("vt", 0.0, 8.0**2),
            AreaBin("t", 8.0**2, 16.0**2),
            AreaBin("s", 16.0**2, 32.0**2),
            AreaBin("m", 32.0**2, LARGEST_AREA),
        ),
        max_dets=(1, 100, 1500),
        olrp=True,
    ),
    "sodad": CocoProtocol(
        "sodad",
        (
            AreaBin("eS", 0.0, 12.0**2),
            AreaBin("rS", 12.0**2, 20.0**2),
            AreaBin("gS", 20.0**2, 32.0**2),
            AreaBin("N", 32.0**2, 40.0 * 50.0),
        ),
        overall=AreaBin("", 0.0, 32.0**2, ious=(0.5, 0.75)),
        max_dets=(100, 300, 1000),
        notes=("AP is of objects of up to 1024 square pixels", "not verified with SODA-D's code"),
    ),
    "tinyperson": CocoProtocol(
        "tinyperson",
        (
            _tiny_person_bin("tiny", 1, 20),
            _tiny_person_bin("tiny1", 1, 8),
            _tiny_person_bin("tiny2", 8, 12),
            _tiny_person_bin("tiny3", 12, 20),
            _tiny_person_bin("small", 20, 32),
            _tiny_person_bin("reasonable", 32, 1e5),
        ),
        overall=_tiny_person_bin("", 1, 1e5),
        iou_thresholds=(0.25, 0.5, 0.75),
        max_dets=(200,),
        ignore_fields=("ignore", "uncertain"),
        excuse_outside=True,
        notes=("no miss rate",),
    ),
}
