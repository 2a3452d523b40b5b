import pytest
from records import read_record
from rendering.mapping_tables import NOISE, render_levels, render_noise

pytestmark = pytest.mark.fast


def level(positives, conv, norm, zero, unread=0.0):
    counted = {"positive_anchors": positives, "sampled_anchors": 0.5, "rois": 0}
    return {
        "share": {**counted, "map": 0.5, "output_conv": conv, "lateral_conv": conv},
        "gradient_norm": {"map": 0.1, "output_conv": norm, "lateral_conv": norm},
        "images_without": {"positive_anchors": 1.0, "unread": unread},
        "zero_output_conv_gradient": zero,
    }


def row(pyramid, p4, p5, p6):
    levels = {"p4": p4, "p5": p5, "p6": p6}
    return {"max_object_size": 16.0, "weights": "trained", "pyramid": pyramid, "levels": levels}


@pytest.fixture
def record():
    p6 = level(0.0, None, None, None)
    rows = [
        row("FPN", level(0.996, 0.99, 0.3, 0.0), level(0.004, 0.012, 0.2, 0.25, unread=0.625), p6),
        row("FPN + CEM", level(0.996, 0.9, 0.3, 0.0), level(0.004, 0.1, 0.5, 0.0), p6),
    ]
    return {
        "min_object_size": 4.0,
        "batches": 4,
        "images_per_batch": 2,
        "protocol": "small",
        "seed": 3,
        "commit": "0123456789",
        "base": {"iterations": 70, "max_object_size": 48.0},
        "finetune": {"iterations": 0, "learning_rate": 0.1},
        "rows": rows,
    }


def cells(text, start):
    (line,) = (x for x in text.splitlines() if x.startswith(start))
    return [x.strip() for x in line.strip("|").split("|")]


def test_samples_are_those_of_stock_fpn_in_percent(record):
    text = render_levels(record)
    assert "Samples of 8 images" in text
    start = "| 4 to 16 px | of the sampled positive"
    assert cells(text, start)[2:] == ["99.6", "0.40", "0"]
    assert cells(text, "| 4 to 16 px | images of which")[2:] == ["0", "62.5", "0"]


def test_gradients_compare_cem_with_the_row_above_it(record):
    text = render_levels(record)
    stock = cells(text, "| 4 to 16 px | base of 70 iterations; CEM new | FPN |")
    cem = cells(text, "| 4 to 16 px | base of 70 iterations; CEM new | FPN + CEM |")
    assert stock[3:] == ["99.0", "1.2", "50.0", "50.0", "1.2", "–", "1 of 4"]
    assert cem[3:] == ["90.0", "10.0", "50.0", "50.0", "10.0", "2.5 x", "0 of 4"]
    assert "seed 3, commit 0123456" in text


def test_a_zero_gradient_of_fpn_has_no_ratio(record):
    record["rows"][0]["levels"]["p5"]["gradient_norm"]["output_conv"] = 0.0
    assert "–" in cells(
        render_levels(record), "| 4 to 16 px | base of 70 iterations; CEM new | FPN + C"
    )


def test_noise_is_in_percent_with_its_spread():
    value = {"mean": 0.0123, "std": 0.004}
    changes = dict.fromkeys(("attention", "kernels", "output", "ap_loss"), value)
    record = {
        "options": {"seeds": 5},
        "bands": {"high": [0.35, 0.71]},
        "seeds_where_guided_changes_less": {"high 0.1": 2},
        "rows": {name: {"high 0.1": changes} for name in ("guided", "unguided", "static")},
    }
    text = render_noise(record)
    assert cells(text, "| SGDM |")[1:] == ["1.23 ± 0.40"] * 4
    assert "in 2 of 5 seeds" in text


def test_what_the_document_says_of_the_levels_is_so():
    record = read_record("level_gradients")
    for x in record["rows"]:
        p5, p6 = x["levels"]["p5"], x["levels"]["p6"]
        assert (p5["count"]["positive_anchors"] == 0) == (x["max_object_size"] == 16)
        assert p6["count"]["positive_anchors"] == 0
        assert x["levels"]["p2"]["share"]["rois"] == 1
        assert p5["zero_output_conv_gradient"] == 0 < p5["images_without"]["unread"]
        assert p5["share"]["lateral_conv"] > 0.25
    ratios = {}
    for stock, cem in zip(record["rows"][::2], record["rows"][1::2], strict=True):
        norms = [
            [r["levels"][level]["gradient_norm"][name] for r in (cem, stock)]
            for level, name in (("p5", "output_conv"), ("p6", "map"))
        ]
        assert all(with_cem > 1.5 * without for with_cem, without in norms)
        ratios[stock["max_object_size"], stock["weights"]] = norms[0][0] / norms[0][1]
    for size in (16, 48):
        assert max(ratios[size, x] for x in ("trained", "finetuned")) < 4 < ratios[size, "new"]


def test_what_the_document_says_of_the_noise_is_so():
    rows = {k: v[NOISE] for k, v in read_record("sgdm_noise")["rows"].items()}
    mean = {k: {name: x["mean"] for name, x in v.items()} for k, v in rows.items()}
    assert mean["guided"]["kernels"] < mean["unguided"]["kernels"]
    assert mean["guided"]["attention"] > mean["unguided"]["attention"]
    difference = abs(mean["guided"]["attention"] - mean["static"]["attention"])
    assert difference < rows["guided"]["attention"]["std"]
    losses = [mean[name]["ap_loss"] for name in rows]
    assert max(losses) - min(losses) <= max(rows[name]["ap_loss"]["std"] for name in rows)
