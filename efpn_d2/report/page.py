"""The page itself: template, style and scripts of this package with a report's numbers in them."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from .gallery import script_json
from .protocol import ReportProtocol, bin_text
from .run import Run
from .tables import class_table, error_table, size_table

_SCRIPTS = ("dom", "axes", "charts", "panels", "labels", "boxes", "gallery", "viewer", "main")


def build_page(
    runs: Sequence[Run],
    protocol: ReportProtocol,
    data: dict[str, Any],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> str:
    """The HTML of a report, which asks for nothing outside of its own folder.

    Args:
        runs: one or two.
        protocol: the rules.
        data: what the scripts need; see :mod:`summary` and :mod:`gallery`.
        title: the page's heading.
        facts: (name, value) pairs that say what was evaluated.
    """
    assets = files(__package__) / "assets"

    def asset(name: str) -> str:
        """A file of this package."""
        return (assets / name).read_text(encoding="utf-8")

    rules = [*facts, *protocol_facts(runs, protocol)]
    return Template(asset("page.html")).substitute(
        title=escape(title),
        style=asset("page.css"),
        facts="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rules),
        iou=f"{protocol.iou_thresholds[0]:g}",
        size_table=size_table(runs, protocol),
        class_table=class_table(runs, protocol),
        error_table=error_table(runs, protocol),
        data=script_json(data),
        script="\n".join(asset(f"{name}.js") for name in _SCRIPTS),
    )


def protocol_facts(runs: Sequence[Run], protocol: ReportProtocol) -> list[tuple[str, str]]:
    """What the numbers mean, spelled out."""
    ious = ", ".join(f"{iou:g}" for iou in protocol.iou_thresholds)
    thresholds = "; ".join(f"{run.threshold:.3f} ({run.name})" for run in runs)
    return [
        ("Protocol", protocol.name),
        ("Size bins", ", ".join(map(bin_text, protocol.bins)) + " (square root of the area)"),
        ("Detections per image", f"at most {protocol.max_dets} per class"),
        ("IoU of AP and AR", ious),
        ("Computed by", ", ".join(sorted({run.metrics.backend for run in runs}))),
        ("Score threshold", thresholds),
    ]
