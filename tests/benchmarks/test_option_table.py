import pytest
from ablation_rows import OPTION_ROWS
from pyramids import PYRAMIDS
from rendering.option_table import COSTS, render_options

pytestmark = pytest.mark.fast


def record(average, small):
    by_size = {
        "AP_0_16": small,
        "AP_0_8": small - 10,
        "AP_8_16": small + 5,
        "AP_16_inf": 80,
        "AR_0_16": small + 10,
    }
    return {"metrics": {"bbox": {"AP": average}}, "by_size": by_size}


COST = {
    "size": 800,
    "rows": {
        "FPN": {"parameters_m": 10, "gmacs": 20},
        "FPN + CEM": {"parameters_m": 12, "gmacs": 23},
    },
}
SPEED = {
    "threads": 1,
    "rounds": 5,
    "hardware": {"cpu": "some CPU"},
    "rows": {"FPN": {"ratio": 1.0}, "FPN + CEM": {"ratio": 1.0345}},
}


def test_differences_are_by_seed():
    records = {
        ("small", "fpn_1x", "native1x"): {0: record(50, 40), 1: record(60, 42)},
        # Seed 2 has nothing to be compared with.
        ("small", "fpn_cem", "native1x"): {
            0: record(51, 44),
            1: record(59, 43),
            2: record(90, 90),
        },
        ("small", "fpn_sgdm", "native1x"): {1: record(61, 42)},
        ("small", "fpn_cem", "native2x"): {0: record(1, 1)},
    }
    lines = render_options(records, COST, SPEED, "small", "native1x").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
    assert [row[:2] for row in rows] == [
        ["`fpn_1x`", "FPN 1x, all iterations"],
        ["`fpn_cem`", "FPN + CEM"],
        ["`fpn_sgdm`", "FPN + SGDM after all stages"],
    ]
    rows = [row[1:] for row in rows]
    assert rows[0][1:8] == ["2", "55.0", "41.0", "31.0", "46.0", "80.0", "51.0"]
    assert rows[0][8:] == ["10.00 M", "1.000 x", "1.000 x"]
    same = "+2.5 (+1.0 to +4.0)"
    none = "+0.0 (+0.0 to +0.0)"
    assert rows[1][1:8] == ["2", "+0.0 (-1.0 to +1.0)", same, same, same, none, same]
    assert rows[1][8:] == ["12.00 M", "1.150 x", "1.034 x"]
    assert rows[2][1:] == ["1", "+1.0", *["+0.0"] * 5, *["not run"] * 3]
    assert "1 thread of some CPU" in lines[-1]


def test_nothing_to_compare_is_not_run():
    assert render_options({}, COST, SPEED, "small", "native1x") == "(not run)"


def test_every_row_has_costs_that_are_measured():
    names = {name for base, others in OPTION_ROWS.items() for name in (base, *others)}
    assert names == COSTS.keys()
    assert set(COSTS.values()) <= PYRAMIDS.keys()
