"""benchmarks/RESULTS.md from its template.

In the template, each of these comments is replaced by a table, a figure or a sentence. Of the
ablation:

* ``finding PROTOCOL VARIANT METRIC ROW SIGN OTHER``: cells of a table, two rows compared on the
  seeds that both have; SIGN is what is said of them: ">", "<", or "~" for less than a point;
* ``table PROTOCOL VARIANT``: the rows;
* ``slim PROTOCOL VARIANT``: the variants of EFPN slim and FPN, and P'2 added to a trained detector;
* ``recovered PROTOCOL``: what each recovers of the gain of FPN 2x;
* ``options PROTOCOL VARIANT``: gains and costs of what can be inserted;
* ``curves PROTOCOL VARIANT``: a figure;
* ``equal_cost PROTOCOL VARIANT``, ``equal_cost_figure PROTOCOL VARIANT``: AP beside time, and the
  targets of EFPN slim;
* ``provenance``: where all of it was run.

Of other records: those of ``RECORD_BLOCKS``, each with the name of its record, and
``targets SIZE DEVICE`` and ``growth DEVICE`` of all records of benchmarks/speed.py.

In sentences, ``[[PROTOCOL ROW VARIANT METRIC]]`` becomes the mean over the seeds, and with
``STAGE:METRIC`` that after one of the row's stages. Rows of different seeds are compared by
``[[PROTOCOL ROW VARIANT METRIC with OTHER ...]]``: the seeds count that the other rows have, too.
METRIC may be ``recovered`` or ``seeds`` (their number). A value without a record is "not run".
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from equal_cost import SPEED, STEPS
from records import Record, Records, metric, read_record, recovered, with_seeds_of

from rendering.ablation_tables import (
    SLIM,
    render_finding,
    render_provenance,
    render_recovered,
    render_rows,
)
from rendering.assignment_table import render_assignment
from rendering.cost_table import render_cost
from rendering.curves_figure import render_curves
from rendering.equal_cost_figure import render_equal_cost_figure
from rendering.equal_cost_table import render_equal_cost
from rendering.gpu_check_tables import render_gpu_check
from rendering.markdown import ABSENT, mean_and_spread
from rendering.option_table import render_options
from rendering.speed_tables import (
    load_speed_records,
    render_detector_steps,
    render_growth,
    render_imports,
    render_lazy_accuracy,
    render_loading,
    render_parts,
    render_speed,
    render_targets,
    render_train_step,
)

# Comments of one record: its folder, and what makes Markdown of it.
RECORD_BLOCKS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "assignment": ("", render_assignment),
    "cost": ("", render_cost),
    "detector_steps": ("train_step/", render_detector_steps),
    "gpu_check": ("", render_gpu_check),
    "imports": ("", render_imports),
    "lazy": ("", render_lazy_accuracy),
    "loading": ("", render_loading),
    "parts": ("speed/parts/", render_parts),
    "speed": ("speed/", render_speed),
    "train_step": ("train_step/", render_train_step),
}


def fill(template: str, records: Records, figures: Path | None = None) -> str:
    """The template with everything filled in.

    Args:
        template: see above.
        records: of the ablation.
        figures: the folder that figures are written to; None: only links to them are made.
    """

    def options(*args: str) -> str:
        cost, speed = read_record("cost"), read_record("speed_cpu")
        return render_options(records, cost, speed, *args) if cost and speed else ABSENT

    equal_cost = (records, read_record(SPEED))
    blocks: dict[str, Callable[..., str]] = {
        "finding": lambda *a: render_finding(records, *a),
        "table": lambda *a: render_rows(records, *a),
        "slim": lambda *a: render_rows(records, *a, SLIM),
        "recovered": lambda *a: render_recovered(records, *a),
        "options": options,
        "curves": lambda *a: render_curves(records, figures, *a),
        "equal_cost": lambda *a: render_equal_cost(*equal_cost, read_record(STEPS), *a),
        "equal_cost_figure": lambda *a: render_equal_cost_figure(*equal_cost, figures, *a),
        "provenance": lambda: render_provenance(records),
        "targets": lambda size, device: render_targets(load_speed_records(), int(size), device),
        "growth": lambda device: render_growth(load_speed_records(), "ResNet-50", device),
    }

    def block(match: re.Match[str]) -> str:
        kind, *arguments = match[1].split()
        if kind not in RECORD_BLOCKS:
            return blocks[kind](*arguments)
        folder, render = RECORD_BLOCKS[kind]
        record = read_record(folder + arguments[0])
        return render(record) if record else ABSENT

    def value(match: re.Match[str]) -> str:
        wanted, *others = match[1].split(" with ")
        return render_value(records, *wanted.split(), others=" ".join(others).split())

    kinds = "|".join([*blocks, *RECORD_BLOCKS])
    text = re.sub(rf"<!-- ((?:{kinds})(?: .*?)?) -->", block, template)
    return re.sub(r"\[\[([^\]]+)\]\]", value, text)


def render_value(
    records: Records, protocol: str, row: str, variant: str, name: str, others: Sequence[str] = ()
) -> str:
    """One number of a sentence, of the seeds that all of ``others`` have, too."""
    runs = with_seeds_of(records, protocol, variant, (row, *others))[row]
    if name == "seeds":
        return str(len(runs))
    if name == "recovered":
        own = {**records, (protocol, row, variant): runs}
        return mean_and_spread(recovered(own, protocol, variant, row))
    return mean_and_spread([metric(run, name) for run in runs.values()])
