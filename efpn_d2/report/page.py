"""The page itself: template, style and scripts of this package with a report's numbers in them."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from efpn_d2.report.gallery import script_json
from efpn_d2.report.protocol import ReportProtocol, area_text, bin_text
from efpn_d2.report.run import Run
from efpn_d2.report.tables import class_table, error_table, evaluation_table, size_table

_SCRIPTS = ("dom", "axes", "charts", "panels", "labels", "boxes", "gallery", "viewer", "main")


def build_page(
    runs: Sequence[Run],
    protocol: ReportProtocol,
    data: dict[str, Any],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The HTML of a report, which asks for nothing outside of its own folder.

    Args:
        runs: one or two.
        protocol: the rules.
        data: what the scripts need; see :mod:`summary` and :mod:`gallery`.
        title: the page's heading.
        facts: (name, value) pairs that say what was evaluated.
        evaluations: what evaluators have written of each run, with "rules" and "results"; empty
            where there is none.
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
        iou=f"{protocol.iou:g}",
        size_table=size_table(runs, protocol),
        class_table=class_table(runs, protocol),
        evaluation=_evaluation(runs, evaluations),
        error_table=error_table(runs, protocol),
        data=script_json(data),
        script="\n".join(asset(f"{name}.js") for name in _SCRIPTS),
    )


def _evaluation(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The numbers that evaluators gave, with their rules, to open on demand."""
    if not evaluations:
        return ""
    rules = evaluations[0].get("rules", {})
    facts = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>"
        for name, value in rules.items()
    )
    numbers = evaluation_table([run.name for run in runs], evaluations)
    return (
        "<details><summary>All numbers of the evaluation, by the rules of its protocol</summary>"
        f'<dl class="facts">{facts}</dl>{numbers}</details>'
    )


def _plain(value: Any) -> str:
    """A JSON value for people."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join("no end" if entry is None else _plain(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def protocol_facts(runs: Sequence[Run], protocol: ReportProtocol) -> list[tuple[str, str]]:
    """What the numbers mean, spelled out."""
    rules = protocol.rules
    ious = ", ".join(f"{iou:g}" for iou in rules.iou_thresholds)
    sizes = ", ".join(area_text(area) for area in rules.areas)
    thresholds = "; ".join(f"{run.threshold:.3f} ({run.name})" for run in runs)
    return [
        ("Protocol", "; ".join([rules.name, *rules.notes])),
        ("Sizes of AP and AR", f"{sizes} (square root of the annotated area)"),
        ("Sizes of errors", ", ".join(map(bin_text, protocol.bins))),
        ("Detections per image", f"at most {protocol.max_dets} per class"),
        ("IoU of AP and AR", ious),
        ("Computed by", ", ".join(sorted({run.metrics.backend for run in runs}))),
        ("Score threshold", thresholds),
    ]
