import json
import re

import pytest
from equal_cost_rows import EQUAL_COST_ROWS
from records import RESULTS, differences, load_records, metric, recovered
from rendering.ablation_tables import SHOWN, render_provenance, render_rows
from rendering.curves_figure import training_curve, write_training_curves
from rendering.markdown import mean_and_spread
from rendering.results import fill

pytestmark = pytest.mark.fast


def record(row, seed, small, variant="native1x", **stage):
    stages = [{"iterations": 100, "seconds": 60.0, "curve": [], **stage}]
    return {
        "protocol": "small",
        "row": row,
        "variant": variant,
        "seed": seed,
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "hardware": {"cpu": "some", "cpu_cores": 2, "gpus": []},
        "metrics": {"bbox": {"AP": 70.0}},
        "by_size": {"AP_0_16": small},
        "stages": stages,
    }


@pytest.fixture
def folder(tmp_path):
    values = {
        ("fpn_1x", 0): 40.0,
        ("fpn_1x", 1): 42.0,
        ("fpn_2x", 0): 60.0,
        ("fpn_2x", 1): 62.0,
        ("efpn", 0): 50.0,
        ("efpn", 1): 57.0,
        ("efpn", 2): 99.0,  # without FPN of the same seed
    }
    for (row, seed), small in values.items():
        file = tmp_path / f"{row}_{seed}.json"
        file.write_text(json.dumps(record(row, seed, small)))
    return tmp_path


def test_mean_and_sample_standard_deviation():
    assert mean_and_spread([1.0, 3.0]) == "2.0 ± 1.4"
    assert mean_and_spread([1.04]) == "1.0"
    assert mean_and_spread([]) == mean_and_spread([None]) == "not run"


def test_recovered_is_per_seed_and_of_seeds_with_both_ends(folder):
    assert recovered(load_records(folder), "small", "native1x", "efpn") == [50.0, 75.0]


def test_recovered_of_no_gain_is_not_defined(folder):
    (folder / "fpn_2x_0.json").write_text(json.dumps(record("fpn_2x", 0, 39.0)))
    assert recovered(load_records(folder), "small", "native1x", "efpn") == [75.0]


def test_differences_are_by_seed_and_of_seeds_that_both_have(folder):
    where = (load_records(folder), "small", "native1x")
    assert differences(*where, "efpn", "fpn_1x") == {0: 10.0, 1: 15.0}
    assert differences(*where, "fpn_1x", "efpn", "AP_0_16") == {0: -10.0, 1: -15.0}
    assert differences(*where, "efpn", "fpn_1x", "AP_0_8") == {}  # none has that
    assert differences(*where, "espcn", "fpn_1x") == {}


@pytest.mark.parametrize(
    ("arguments", "cells"),
    [
        ("AP_0_16 efpn > fpn_1x", "`efpn` > `fpn_1x` | native1x | AP 0-16 | 2 | +12.5 ± 3.5"),
        ("AP_0_16 fpn_2x ~ efpn", "`fpn_2x` ~ `efpn` | native1x | AP 0-16 | 2 | +7.5 ± 3.5"),
        ("AP efpn < espcn", "`efpn` < `espcn` | native1x | AP | 0 | not run"),
    ],
)
def test_a_finding_compares_two_rows_on_their_common_seeds(folder, arguments, cells):
    text = fill(f"| x | <!-- finding small native1x {arguments} --> |", load_records(folder))
    assert text == f"| x | {cells} |"


def findings() -> list[list[str]]:
    """Protocol, variant, metric, row, sign and other of each comparison of the template."""
    template = (RESULTS.parent / "RESULTS.template.md").read_text()
    return [x.split() for x in re.findall(r"<!-- finding (.*?) -->", template)]


@pytest.mark.parametrize("finding", findings(), ids=lambda x: "-".join([*x[:4], x[5]]))
def test_what_is_found_is_what_the_records_say(finding):
    protocol, variant, name, row, sign, other = finding
    values = differences(load_records(), protocol, variant, row, other, name).values()
    assert values, "not run"
    mean = sum(values) / len(values)
    assert {">": mean > 0, "<": mean < 0, "~": abs(mean) < 1}[sign], f"{mean:+.2f}"


def test_provenance_counts_the_records_of_a_variant(folder):
    other = record("efpn", 0, 50.0, "native2x") | {"commit": None}
    (folder / "other.json").write_text(json.dumps(other))
    lines = render_provenance(load_records(folder)).splitlines()
    assert lines[2:] == [
        "| small | native1x | 7 | some (2) | 2 | 0123456 |",
        "| small | native2x | 1 | some (2) | 2 | unknown |",
    ]


def test_table_has_the_rows_that_were_run(folder):
    lines = render_rows(load_records(folder), "small", "native1x").splitlines()
    assert len(lines) == 2 + 3
    row = next(line for line in lines if line.startswith("| `efpn` | EFPN, the paper's"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:6] == ["3", "70.0 ± 0.0", "68.7 ± 26.5"]
    assert cells[-2:] == ["+12.5 ± 3.5", "100"]


def test_values_in_sentences(folder):
    text = fill(
        "[[small fpn_1x native1x AP_0_16]], [[small efpn native1x recovered]] %, "
        "[[small espcn native1x AP]]",
        load_records(folder),
    )
    assert text == "41.0 ± 1.4, 62.5 ± 17.7 %, not run"


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("[[small efpn native1x AP_0_16]]", "68.7 ± 26.5"),
        ("[[small efpn native1x AP_0_16 with fpn_1x]]", "53.5 ± 4.9"),
        ("[[small fpn_1x native1x AP_0_16 with efpn espcn]]", "not run"),
        ("[[small fpn_1x native1x seeds]], [[small efpn native1x seeds with fpn_1x]]", "2, 2"),
        ("[[small efpn native1x recovered with fpn_1x]]", "62.5 ± 17.7"),
    ],
)
def test_values_of_the_seeds_that_rows_have_in_common(folder, sentence, text):
    assert fill(sentence, load_records(folder)) == text


@pytest.mark.parametrize(("variant", "label"), [("native1x", "0_8"), ("native2x", "0_16")])
def test_values_after_a_stage_are_by_size_in_student_pixels(variant, label):
    stage = {"stage": "distill", "metrics": {"bbox": {f"AP_{label}": 7.0, f"AP50_{label}": 9.0}}}
    run = record("efpn", 0, 1.0, variant, **stage)
    assert metric(run, "distill:AP_0_8") == 7.0
    assert metric(run, "distill:AP50_0_8") == 9.0


def test_unknown_variants_are_not_run(folder):
    assert fill("<!-- table small native2x -->", load_records(folder)) == "(not run)"


def test_rows_of_slim_have_a_table_of_their_own(folder):
    for row in ("slim", "slim_half", "fpn_nwd", "fpn_1.19x"):
        (folder / f"{row}.json").write_text(json.dumps(record(row, 0, 61.0)))
    records = load_records(folder)
    own = fill("<!-- slim small native1x -->", records).splitlines()
    assert len(own) == 2 + 3
    for line, row in zip(own[2:], ("slim", "slim_half", "fpn_nwd"), strict=True):
        spec = EQUAL_COST_ROWS[row]
        assert line.startswith(f"| `{row}` | {spec.title} | {spec.paper} | 1 | 70.0 | 61.0 |")
    assert not EQUAL_COST_ROWS.keys() & set(SHOWN)
    assert len(fill("<!-- table small native1x -->", records).splitlines()) == 2 + 3
    recovered_rows = fill("<!-- recovered small -->", records)
    assert "105.0 % (1)" in recovered_rows
    assert EQUAL_COST_ROWS["fpn_1.19x"].title not in recovered_rows


def test_curve_counts_iterations_over_the_stages():
    run = record("efpn", 0, 1.0)
    point = {"iterations": 101, "AP_0_8": 3.0}  # evaluated after the last of 100 iterations
    empty = {"iterations": 50, "AP_0_8": None}
    run["stages"] = [
        {"iterations": 100, "curve": [empty, point]},
        {"iterations": 40, "curve": []},
        {"iterations": 60, "curve": [{"iterations": 60, "AP_0_8": 5.0}]},
    ]
    assert training_curve(run, "AP_0_8") == ([100, 200], [3.0, 5.0])


def test_figure_of_curves(tmp_path):
    run = record("efpn", 0, 1.0, curve=[{"iterations": 100, "AP_0_8": 3.0}])
    path = tmp_path / "curves.png"
    write_training_curves(path, {"EFPN": [run]}, {"AP_0_8": "objects of 0 to 8 px"})
    assert path.read_bytes().startswith(b"\x89PNG")
