"""The report's tables as HTML. Every text from outside is escaped here."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from efpn_d2.evaluation.error_analysis import Kind
from efpn_d2.evaluation.error_summary import Rates, Selection, error_counts, rates, select
from efpn_d2.report.protocol import ReportProtocol, area_ends, area_text, bin_text
from efpn_d2.report.run import Run

NO_OBJECT, NO_DETECTION = "n/a (0 objects)", "n/a (0 detections)"
RUN, METRIC = "run", "metric"  # headings of columns with text


class Cell(NamedTuple):
    """Text of a table cell, the number to sort by, and its CSS class."""

    text: str
    value: float | None = None
    style: str = ""


# Of a run, by size and class (None: all), with the rates of what these select.
MetricValue = Callable[[Run, int, int | None, Rates], float]


class Metric(NamedTuple):
    """A column: its heading, what it means, and its value in percent for a size or class."""

    heading: str
    meaning: str
    value: MetricValue


def table(
    caption: str, headings: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], name: str
) -> str:
    """A table whose columns the page can sort.

    Args:
        caption: read out with the table.
        headings: (text, what it means) of each column.
        rows: the cells; a row's first one is its heading.
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


def _precision_at(iou: float) -> MetricValue:
    return lambda run, size, k, _: run.metrics.average_precision(size, k, iou)


def _precision_of(size: int) -> MetricValue:
    return lambda run, _, k, rate: run.metrics.average_precision(size, k)


def metrics(protocol: ReportProtocol) -> list[Metric]:
    """The columns of the tables by size and class."""
    columns = [
        Metric(
            "AP",
            "mean over the IoU thresholds and classes",
            lambda run, size, k, _: run.metrics.average_precision(size, k),
        )
    ]
    for iou in (0.5, 0.75):
        if any(math.isclose(iou, threshold) for threshold in protocol.rules.iou_thresholds):
            columns.append(Metric(f"AP{iou * 100:.0f}", f"AP at IoU {iou:g}", _precision_at(iou)))
    columns += [
        Metric(
            "AR",
            f"recall with at most {protocol.max_dets} detections per image and class, mean over "
            "the IoU thresholds and classes",
            lambda run, size, k, _: run.metrics.average_recall(size, k),
        ),
        Metric(
            "accuracy",
            f"TP / (TP + FP) at IoU {protocol.iou:g} and the score threshold",
            lambda run, size, k, rate: 100 * rate.accuracy,
        ),
        Metric(
            "recall",
            f"found / objects at IoU {protocol.iou:g} and the score threshold",
            lambda run, size, k, rate: 100 * rate.recall,
        ),
        Metric(
            "F1",
            "harmonic mean of accuracy and recall",
            lambda run, size, k, rate: 100 * rate.f1,
        ),
    ]
    return columns


def size_table(runs: Sequence[Run], protocol: ReportProtocol) -> str:
    """One row per run and size, and with two runs one for the difference."""
    columns = metrics(protocol)
    headings = [("size", "square root of the area"), ("objects", "without crowds")]
    if len(runs) > 1:
        headings.insert(1, (RUN, ""))
    headings += [(column.heading, column.meaning) for column in columns]
    rows = []
    for size, area in enumerate(protocol.rules.areas):
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


def class_table(runs: Sequence[Run], protocol: ReportProtocol) -> str:
    """One row per class; with two runs the difference stands beside each pair of numbers."""
    columns = metrics(protocol)
    if len(runs) > 1:
        columns = [column for column in columns if column.heading in ("AP", "AP50", "F1")]
    headings = [("class", ""), ("objects", "without crowds")]
    for column in [*columns, *_bin_columns(protocol)]:
        if len(runs) == 1:
            headings.append((column.heading, column.meaning))
            continue
        headings += [(f"{column.heading}, {run.name}", column.meaning) for run in runs]
        headings.append((f"Δ {column.heading}", "difference: second run minus first"))
    columns += _bin_columns(protocol)
    rows = []
    for k, name in enumerate(runs[0].analysis.truth.class_names):
        selected = [select(run.analysis, class_index=k) for run in runs]
        values = [_values(run, columns, 0, k, s) for run, s in zip(runs, selected, strict=True)]
        row = [Cell(name), _count(int(selected[0].objects.sum()))]
        for numbers in zip(*values, strict=True):
            row += (_percent(number, row[1].value) for number in numbers)
            row += [_difference(*numbers)] if len(runs) > 1 else []
        rows.append(row)
    rows.sort(key=lambda row: row[1].value == 0)  # many data sets have classes without objects
    return table("By class (click a heading to sort)", headings, rows, "classes")


def _bin_columns(protocol: ReportProtocol) -> list[Metric]:
    return [
        Metric(
            f"AP {area_text(area)}",
            "AP of the objects of that size",
            _precision_of(size),
        )
        for size, area in enumerate(protocol.rules.areas[1:], start=1)
    ]


def error_table(runs: Sequence[Run], protocol: ReportProtocol) -> str:
    """How often each kind of error occurs, by size."""
    headings = [("size", ""), *([(RUN, "")] if len(runs) > 1 else [])]
    kinds = [kind for kind in Kind if kind != Kind.IGNORED]
    headings += [(kind.name.lower(), "") for kind in kinds]
    counts = [error_counts(run.analysis, protocol.bounds, run.threshold) for run in runs]
    rows = []
    for b, name in [(None, "all sizes"), *enumerate(map(bin_text, protocol.bins))]:
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
    """All numbers that evaluators have written of the runs, by task and metric."""
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
