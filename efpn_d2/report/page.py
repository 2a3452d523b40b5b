"""HTML page of a report: the template, style and scripts of this package with its numbers."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from efpn_d2.evaluation.coco_backends import backend_version
from efpn_d2.report.gallery import script_json
from efpn_d2.report.rules import ReportRules, area_text, bin_text
from efpn_d2.report.run import Run
from efpn_d2.report.tables import METRIC_TABLES, error_table, evaluation_table

_SCRIPTS = ("dom", "axes", "charts", "panels", "labels", "boxes", "gallery", "viewer", "main")


def build_page(
    runs: Sequence[Run],
    rules: ReportRules,
    data: dict[str, Any],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Build the HTML of a report, which loads nothing from outside its own folder.

    Args:
        runs: one or two.
        rules: rules of its numbers.
        data: input of the scripts; see :mod:`summary` and :mod:`gallery`.
        title: heading of the page.
        facts: (name, value) pairs that describe what was evaluated.
        evaluations: for each run, the "rules" and "results" of its evaluator; empty if there are
            none.
    """
    assets = files(__package__) / "assets"

    def asset(name: str) -> str:
        """Read a file of this package."""
        return (assets / name).read_text(encoding="utf-8")

    shown = [*facts, *rule_facts(runs, rules)]
    return Template(asset("page.html")).substitute(
        title=escape(title),
        style=asset("page.css"),
        facts="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shown),
        iou=f"{rules.iou:g}",
        metric_tables="\n  ".join(table(runs, rules) for table in METRIC_TABLES),
        evaluation=_evaluation(runs, evaluations),
        error_table=error_table(runs, rules),
        data=script_json(data),
        script="\n".join(asset(f"{name}.js") for name in _SCRIPTS),
    )


def _evaluation(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Build a collapsed section with the numbers of the evaluators and their rules."""
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
    """Format a JSON value for readers."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join("no end" if entry is None else _plain(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def rule_facts(runs: Sequence[Run], rules: ReportRules) -> list[tuple[str, str]]:
    """Describe the rules of the numbers as (name, value) pairs."""
    coco = rules.coco
    ious = ", ".join(f"{iou:g}" for iou in coco.iou_thresholds)
    sizes = ", ".join(area_text(area) for area in coco.areas)
    thresholds = "; ".join(f"{run.threshold:.3f} ({run.name})" for run in runs)
    return [
        ("Protocol", "; ".join([coco.name, *coco.notes])),
        ("Sizes of AP and AR", f"{sizes} (square root of the annotated area)"),
        ("Sizes of errors", ", ".join(map(bin_text, rules.bins))),
        ("Detections per image", f"at most {rules.max_dets} per class"),
        ("IoU of AP and AR", ious),
        ("Computed by", ", ".join(sorted({backend_version(run.result.backend) for run in runs}))),
        ("Score threshold", thresholds),
    ]
