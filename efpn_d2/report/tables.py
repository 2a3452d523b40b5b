"""HTML tables of a report, with external text escaped."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from efpn_d2.error_analysis.summary import Rates, Selection, error_counts, rates, select
from efpn_d2.error_analysis.verdicts import Kind
from efpn_d2.evaluation.metric_specs import MetricSpec, mean_percent, metric_specs
from efpn_d2.report.rules import ReportRules, area_ends, area_text, bin_text
from efpn_d2.report.run import Run

NO_OBJECT, NO_DETECTION = "n/a (0 objects)", "n/a (0 detections)"
RUN, METRIC = "run", "metric"  # headings of columns with text


class Cell(NamedTuple):
    """Text of a table cell, the number by which it is sorted, and its CSS class."""

    text: str
    value: float | None = None
    style: str = ""


# Value for a run, size index and class index (None: all), given the rates of that selection.
MetricValue = Callable[[Run, int, int | None, Rates], float]


class Metric(NamedTuple):
    """A column: its heading, its meaning, and its value in percent for a size or class."""

    heading: str
    meaning: str
    value: MetricValue


def table(
    caption: str, headings: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], name: str
) -> str:
    """Build a table whose columns can be sorted on the page.

    Args:
        caption: caption of the table, for screen readers.
        headings: (text, meaning) of each column.
        rows: the cells; the first one of a row is its heading.
        name: value of the ``data-table`` attribute.
    """
    head = "".join(_heading(text, meaning) for text, meaning in headings)
    body, before = "", None
    for cells in rows:
        start = '<tr class="same">' if cells[0] == before else "<tr>"
        body += f"{start}{_row(cells)}</tr>"
        before = cells[0]
    return (
        f'<div class="scroll"><table data-table="{escape(name)}"><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heading(text: str, meaning: str) -> str:
    style = ' class="run"' if text in (RUN, METRIC) else ""
    title = f' title="{escape(meaning)}"' if meaning else ""
    return f'<th scope="col"{style}{title}>{escape(text)}</th>'


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    row = f'<th scope="row">{escape(first.text)}</th>'
    for cell in rest:
        style = f' class="{cell.style}"' if cell.style else ""
        value = "" if cell.value is None else f' data-value="{cell.value:g}"'
        row += f"<td{style}{value}>{escape(cell.text)}</td>"
    return row


def _value_of(spec: MetricSpec) -> MetricValue:
    return lambda run, size, k, _: spec.value(run.result.part(size, k))


def metrics(rules: ReportRules) -> list[Metric]:
    """Return the columns of the tables by size and class."""
    specs = [spec for spec in metric_specs(rules.coco) if spec.by_size]
    return [
        *(Metric(spec.name, spec.meaning, _value_of(spec)) for spec in specs),
        Metric(
            "accuracy",
            f"TP / (TP + FP) at IoU {rules.iou:g} and the score threshold",
            lambda run, size, k, rate: 100 * rate.accuracy,
        ),
        Metric(
            "recall",
            f"found / objects at IoU {rules.iou:g} and the score threshold",
            lambda run, size, k, rate: 100 * rate.recall,
        ),
        Metric(
            "F1",
            "harmonic mean of accuracy and recall",
            lambda run, size, k, rate: 100 * rate.f1,
        ),
    ]


def size_table(runs: Sequence[Run], rules: ReportRules) -> str:
    """Build the table by size: one row per run and size, and differences for two runs."""
    columns = metrics(rules)
    headings = [("size", "square root of the area"), ("objects", "without crowds")]
    if len(runs) > 1:
        headings.insert(1, (RUN, ""))
    headings += [(column.heading, column.meaning) for column in columns]
    rows = []
    for size, area in enumerate(rules.coco.areas):
        name = area_text(area)
        selected = [select(run.analysis, *area_ends(area)) for run in runs]
        values = [
            _values(run, columns, size, None, s) for run, s in zip(runs, selected, strict=True)
        ]
        objects = _count(int(selected[0].objects.sum()))
        for run, numbers in zip(runs, values, strict=True):
            label = [Cell(run.name, style="run")] if len(runs) > 1 else []
            rows.append(
                [
                    Cell(name),
                    *label,
                    objects,
                    *(_percent(number, objects.value) for number in numbers),
                ]
            )
        if len(runs) > 1:
            differences = map(_difference, *values)
            rows.append([Cell(name), Cell("difference", style="run"), objects, *differences])
    return table("By object size", headings, rows, "sizes")


def class_table(runs: Sequence[Run], rules: ReportRules) -> str:
    """Build the table by class: one row per class, for two runs with differences."""
    columns = metrics(rules)
    if len(runs) > 1:
        columns = [column for column in columns if column.heading in ("AP", "AP50", "F1")]
    headings = [("class", ""), ("objects", "without crowds")]
    for column in [*columns, *_bin_columns(rules)]:
        if len(runs) == 1:
            headings.append((column.heading, column.meaning))
            continue
        headings += [(f"{column.heading}, {run.name}", column.meaning) for run in runs]
        headings.append((f"Δ {column.heading}", "difference: second run minus first"))
    columns += _bin_columns(rules)
    rows = []
    for k, name in enumerate(runs[0].analysis.truth.class_names):
        selected = [select(run.analysis, class_index=k) for run in runs]
        values = [_values(run, columns, 0, k, s) for run, s in zip(runs, selected, strict=True)]
        row = [Cell(name), _count(int(selected[0].objects.sum()))]
        for numbers in zip(*values, strict=True):
            row += (_percent(number, row[1].value) for number in numbers)
            row += [_difference(*numbers)] if len(runs) > 1 else []
        rows.append(row)
    rows.sort(key=lambda row: row[1].value == 0)  # many datasets have classes without objects
    return table("By class (click a heading to sort)", headings, rows, "classes")


METRIC_TABLES: tuple[Callable[[Sequence[Run], ReportRules], str], ...] = (
    size_table,
    class_table,
)
"""The tables in the report's section of metrics, in order."""


def _bin_columns(rules: ReportRules) -> list[Metric]:
    def precision(size: int) -> MetricValue:
        """Compute AP in a size bin, for any size of the row."""
        return lambda run, _, k, __: mean_percent(run.result.part(size, k).precision[..., -1])

    return [
        Metric(f"AP {area_text(area)}", "AP of the objects of that size", precision(size))
        for size, area in enumerate(rules.coco.areas[1:], start=1)
    ]


def error_table(runs: Sequence[Run], rules: ReportRules) -> str:
    """Build the table of the kinds of errors by size."""
    headings = [("size", ""), *([(RUN, "")] if len(runs) > 1 else [])]
    kinds = [kind for kind in Kind if kind != Kind.IGNORED]
    headings += [(kind.name.lower(), "") for kind in kinds]
    counts = [error_counts(run.analysis, rules.bounds, run.threshold) for run in runs]
    rows = []
    for b, name in [(None, "all sizes"), *enumerate(map(bin_text, rules.bins))]:
        numbers = [count.sum(axis=0) if b is None else count[b] for count in counts]
        for run, values in zip(runs, numbers, strict=True):
            label = [Cell(run.name, style="run")] if len(runs) > 1 else []
            rows.append([Cell(name), *label, *(_count(int(values[kind])) for kind in kinds)])
        if len(runs) > 1:
            change = [int(numbers[1][kind] - numbers[0][kind]) for kind in kinds]
            cells = [
                Cell(f"{n:+d}" if n else "0", n, _style(n if kind == Kind.FOUND else -n))
                for kind, n in zip(kinds, change, strict=True)
            ]
            rows.append([Cell(name), Cell("difference", style="run"), *cells])
    return table("Detections and objects by kind", headings, rows, "errors")


def evaluation_table(names: Sequence[str], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Build a table of all numbers that evaluators have written, by task and metric."""
    results = [
        {
            (task, metric): value
            for task, metrics in evaluation.get("results", {}).items()
            if isinstance(metrics, Mapping)
            for metric, value in metrics.items()
            if isinstance(value, (int, float))
        }
        for evaluation in evaluations
    ]
    keys = dict.fromkeys(key for numbers in results for key in numbers)
    rows = []
    for task, metric in keys:
        values = [numbers.get((task, metric), math.nan) for numbers in results]
        cells = [Cell("n/a" if math.isnan(v) else f"{v:,.6g}") for v in values]
        rows.append([Cell(task), Cell(metric, style="run"), *cells])
    headings = [("task", ""), (METRIC, ""), *((name, "") for name in names)]
    return table("All numbers of the evaluation", headings, rows, "evaluation")


def _values(
    run: Run,
    columns: Sequence[Metric],
    size: int,
    class_index: int | None,
    selection: Selection,
) -> list[float]:
    rate = rates(run.analysis, selection, run.threshold)
    if not rate.objects:
        return [math.nan] * len(columns)
    return [column.value(run, size, class_index, rate) for column in columns]


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _percent(value: float, objects: float | None) -> Cell:
    if math.isnan(value):
        return Cell(NO_DETECTION if objects else NO_OBJECT, style="none")
    return Cell(f"{value:.1f}", round(value, 4))


def _difference(first: float, second: float) -> Cell:
    change = round(second - first, 4)
    if math.isnan(change):
        return Cell("n/a", style="none")
    if not round(change, 1):
        return Cell("0.0", change, "same")
    return Cell(f"{change:+.1f}", change, _style(change))


def _style(gain: float) -> str:
    if not gain:
        return "same"
    return "better" if gain > 0 else "worse"
