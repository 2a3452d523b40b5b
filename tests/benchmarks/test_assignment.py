import json
from pathlib import Path

import assignment
import numpy as np
import pytest
from rendering.assignment_table import render_assignment

from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic, synthetic_paths
from efpn_d2.dataset_advice.objects import ObjectTable

pytestmark = pytest.mark.fast


def test_positives_by_size_of_all_similarities(tmp_path, capsys):
    config = SyntheticConfig(
        variant="native1x", split="train", num_images=4, student_size=64, max_size=32.0
    )
    generate_synthetic(config, root=str(tmp_path / "data"))
    annotations, _ = synthetic_paths("native1x", "train", str(tmp_path / "data"))
    assignment.main(["--dataset", str(annotations), "--results", str(tmp_path)])
    record = json.loads((tmp_path / "assignment.json").read_text())
    assert record["images"] == 4
    rows = {(r["detector"], r["similarity"]): r["bins"] for r in record["rows"]}
    assert rows.keys() == {(d, s) for d, names in assignment.DETECTORS.items() for s in names}
    truth = json.loads(Path(annotations).read_text())["annotations"]
    for bins in rows.values():
        assert [x["size"] for x in bins] == [[0, 8], [8, 16], [16, None]]
        assert sum(x["objects"] for x in bins) == len(truth)
        assert all(x["positives"] >= x["objects"] - x["objects_without"] for x in bins)
        assert all(x["mean_best_iou"] > 0.3 for x in bins if x["objects"])
    for detector, names in assignment.DETECTORS.items():
        if len(names) == 1:
            continue
        iou, nwd = (rows[detector, name][0]["positives"] for name in ("iou", "nwd"))
        assert nwd > iou > 0


def test_the_table_has_a_line_per_similarity_and_a_column_per_size():
    bins = [
        {"size": [0.0, 8.0], "positives_per_object": 1.26, "mean_best_iou": 0.456},
        {"size": [8.0, None], "positives_per_object": 20.0, "mean_best_iou": 0.6},
    ]
    rows = [{"detector": "FPN", "similarity": name, "bins": bins} for name in ("iou", "nwd")]
    record = {"rows": rows, "images": 7, "dataset": "signs", "commit": "0123456789"}
    head, _, *lines = render_assignment(record).splitlines()
    assert "0 to 8 px" in head and "8 px and more" in head
    assert [line.split(" | ")[1:] for line in lines[:2]] == [
        ["iou", "1.3", "20.0", "0.46", "0.60 |"],
        ["nwd", "1.3", "20.0", "0.46", "0.60 |"],
    ]
    assert "7 images" in lines[-1] and "0123456" in lines[-1]


def test_the_best_anchor_of_an_object_of_its_size_and_place_fits_it():
    cfg = assignment.measured_config(assignment.parse_args([]), "fpn_1x")
    # Anchors of 6, 12 and 24 px are centred at multiples of 4, 8 and 16 px.
    boxes = np.array([[5, 5, 11, 11], [2, 2, 14, 14], [4, 4, 20, 20]], float)
    table = ObjectTable(boxes, np.zeros(3, int), np.array([[64, 64]]), np.ones(1), {})
    small, large = assignment.best_fits(cfg, table, [0.0, 14.0])
    assert small == {"mean_best_iou": 1.0, "objects_reached": 1.0}
    # Within one of 24 px that is centred at 16.
    assert large == {"mean_best_iou": round(16**2 / 24**2, 3), "objects_reached": 0.0}
