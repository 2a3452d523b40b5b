import pytest
from ablation_rows import ROWS
from detectors import DETECTORS
from equal_cost import (
    ENTRIES,
    SGDM_LINE,
    Point,
    make_points,
    neighbours,
    over_line,
)
from rendering.equal_cost_figure import render_equal_cost_figure
from rendering.equal_cost_table import render_equal_cost, render_points, render_slim_targets
from train_step import DETECTOR_CASES

pytestmark = pytest.mark.fast

# AP 0-16 of seeds 0 and 1, AP 16+ and CPU time of each detector.
NUMBERS = {
    "FPN 1x": ((40.0, 42.0), 80.0, 1.0),
    "FPN 2x": ((60.0, 62.0), 82.0, 3.5),
    "FPN + SGDM 1x": ((50.0, 52.0), 81.0, 1.1),
    "FPN + SGDM 1.19x": ((54.0, 52.0), 83.0, 1.5),
    "EFPN slim": ((57.0, 56.0), 82.0, 1.14),
}


def run(small, large=80.0):
    return {
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "hardware": {"cpu": "some", "cpu_cores": 2, "gpus": []},
        "metrics": {"bbox": {"AP": 70.0}},
        "by_size": {"AP_0_16": small, "AP_16_inf": large},
    }


def make_records(**changes):
    numbers = {**NUMBERS, **changes}
    return {
        ("tiny", ENTRIES[name].row, "native1x"): {
            seed: run(value, large) for seed, value in enumerate(small)
        }
        for name, (small, large, _) in numbers.items()
    }


def make_speed(**changes):
    times = {name: time for name, (*_, time) in NUMBERS.items()} | changes
    rows = {
        ENTRIES[name].detector: {"ratio": time, "memory_gib": time / 2}
        for name, time in times.items()
    }
    return {
        "backbone": "ResNet-50",
        "size": 800,
        "precision": "float32",
        "channels_last": False,
        "threads": 2,
        "rounds": 5,
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "hardware": {"cpu": "some", "gpus": []},
        "rows": rows,
    }


def make_steps(ratio):
    return {"rows": {ENTRIES["EFPN slim"].detector: {"ratio": ratio}}}


def points_of(records=None, speed=None):
    records = make_records() if records is None else records
    return make_points(records, "tiny", "native1x", make_speed() if speed is None else speed)


def cells(text):
    """Of each line of a table the cells by its first one."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    lines = [[x.strip() for x in line.strip("|").split(" | ")] for line in rows]
    return {first: rest for first, *rest in lines[2:]}


def verdicts(points, steps=None):
    """The last column of the targets, from top to bottom."""
    return [
        row[-1] for row in cells(render_slim_targets(points, steps).replace("||", "| |")).values()
    ]


def line_point(time, *values):
    return Point(SGDM_LINE, time, 1.0, {seed: run(x) for seed, x in enumerate(values)})


LINE = [line_point(1.0, 50.0, 40.0), line_point(2.0, 60.0, 44.0), line_point(4.0, 64.0)]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (1.25, {0: 70 - 52.5, 1: 70 - 41.0}),
        (2.0, {0: 70 - 60.0, 1: 70 - 44.0}),
        (3.0, {0: 70 - 62.0}),  # the line has no seed 1 there
        (4.0, {0: 70 - 64.0}),
        (0.99, None),
        (4.01, None),
        (None, None),
    ],
)
def test_the_line_is_interpolated_over_time_by_seed(time, expected):
    point = Point("", time, 1.0, {seed: run(70.0) for seed in range(3)})
    assert over_line(LINE, point, "AP_0_16") == (expected and pytest.approx(expected))


def test_neighbours_are_the_next_ones_that_were_timed_whether_trained_or_not():
    line = [LINE[0], line_point(1.5), LINE[1]]
    assert neighbours(line, 1.25) == (line[0], line[1])
    assert over_line(line, line_point(1.25, 70.0), "AP_0_16") == {}
    assert neighbours([], 1.0) is None


def test_costs_are_multiples_of_fpns_and_gains_are_by_seed():
    rows = cells(render_points(points_of()))
    assert rows.keys() == NUMBERS.keys()
    assert rows["FPN 1x"] == ["41.0 ± 1.4", "80.0 ± 0.0", "70.0 ± 0.0", "2", "1.00", "1.00", "-"]
    # At 1.14, a tenth of the way: 50.4 and 52.0.
    assert rows["EFPN slim"][3:] == ["2", "1.14", "1.14", "+5.3 ± 1.8 (2)"]
    assert rows["FPN + SGDM 1x"][-1] == "-"
    assert rows["FPN 2x"][-1] == "-"  # it takes longer than all of the line


def test_what_was_not_measured_is_not_run():
    missing = [name for name in ENTRIES if name not in NUMBERS]
    assert render_points(points_of()).endswith(f"\n\nNot run: {', '.join(missing)}.")
    without_times = cells(render_points(make_points(make_records(), "tiny", "native1x", None)))
    assert without_times["EFPN slim"][2:] == ["70.0 ± 0.0", "2", *["not run"] * 3]
    untrained = render_points(points_of(records={}))
    assert not cells(untrained) and untrained.endswith(f"Not run: {', '.join(ENTRIES)}.")


def test_memory_may_be_left_out_of_a_record():
    speed = make_speed()
    for row in speed["rows"].values():
        del row["memory_gib"]
    assert cells(render_points(points_of(speed=speed)))["EFPN slim"][4:6] == ["1.14", "not run"]


def test_targets_are_met_or_missed():
    assert verdicts(points_of(), make_steps(1.25)) == [
        *("missed", "missed", "met"),
        *("met", "missed", "met"),
    ]
    rows = list(cells(render_slim_targets(points_of(), make_steps(1.25))).values())
    assert [row[1] for row in rows] == [
        "-4.5 ± 2.1 (2)",
        "+5.3 ± 1.8 (2)",
        "+0.8 ± 0.0 (2)",
        "1.140",
        "1.140",
        "1.250",
    ]


def test_targets_change_with_the_numbers():
    below = make_records(**{"EFPN slim": ((50.0, 51.0), 81.1, None)})
    assert verdicts(points_of(below))[:3] == ["missed", "missed", "missed"]
    above = make_records(**{"EFPN slim": ((70.0, 71.0), 84.0, None)})
    assert verdicts(points_of(above))[:3] == ["met", "met", "met"]
    slow = points_of(speed=make_speed(**{"EFPN slim": 1.2}))
    assert verdicts(slow, make_steps(1.26))[3:] == ["missed", "missed", "missed"]
    assert verdicts(points_of(speed=make_speed(**{"EFPN slim": 1.1})))[3:5] == ["met", "met"]


def test_targets_without_numbers_have_no_verdict():
    missing = make_points({}, "tiny", "native1x", None)
    rows = list(cells(render_slim_targets(missing, None)).values())
    assert [row[1:] for row in rows] == [["not run", "-"]] * 6
    outside = points_of(speed=make_speed(**{"EFPN slim": 1.05}))
    assert verdicts(outside)[1:3] == ["-", "-"]


def test_every_point_has_a_row_and_a_detector_that_exist():
    assert {entry.row for entry in ENTRIES.values() if entry.row} <= ROWS.keys()
    assert {entry.detector for entry in ENTRIES.values()} <= DETECTORS.keys()
    rows = [entry.row for entry in ENTRIES.values() if entry.row]
    assert len(rows) == len(set(rows))
    assert set(DETECTOR_CASES) <= {entry.detector for entry in ENTRIES.values()}


def test_a_point_is_timed_at_the_scale_of_its_row():
    for entry in ENTRIES.values():
        if entry.row:
            assert DETECTORS[entry.detector].scale == ROWS[entry.row].scale


def test_table_and_targets_from_the_records():
    records = make_records()
    assert "| CPU time, of FPN's | at most 1.15 | not run | - |" in render_equal_cost(
        records, None, None, "tiny", "native1x"
    )
    text = render_equal_cost(records, make_speed(), make_steps(1.2), "tiny", "native1x")
    assert "| 1.140 | met |" in text
    assert "| 1.200 | met |" in text


def test_figure_file(tmp_path):
    records, speed, where = make_records(), make_speed(), ("tiny", "native1x")
    assert render_equal_cost_figure(records, None, tmp_path, *where) == "(not run)"
    assert render_equal_cost_figure({}, speed, tmp_path, *where) == "(not run)"
    link = render_equal_cost_figure(records, speed, None, *where)
    assert link.endswith("(results/equal_cost_native1x.png)")
    assert not list(tmp_path.iterdir())  # only the link was made
    assert render_equal_cost_figure(records, speed, tmp_path, *where) == link
    assert (tmp_path / "equal_cost_native1x.png").read_bytes().startswith(b"\x89PNG")
