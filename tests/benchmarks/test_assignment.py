import json
from pathlib import Path

import assignment
import pytest
from assignment_table import render_assignment

from efpn_d2.data.datasets.synthetic import SyntheticConfig, generate_synthetic, synthetic_paths

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
    for detector in assignment.DETECTORS:
        iou, nwd = (rows[detector, name][0]["positives"] for name in ("iou", "nwd"))
        assert nwd > iou > 0


def test_the_table_has_a_line_per_similarity_and_a_column_per_size():
    bins = [
        {"size": [0.0, 8.0], "positives_per_object": 1.26},
        {"size": [8.0, None], "positives_per_object": 20.0},
    ]
    rows = [{"detector": "FPN", "similarity": name, "bins": bins} for name in ("iou", "nwd")]
    record = {"rows": rows, "images": 7, "dataset": "signs", "commit": "0123456789"}
    head, _, *lines = render_assignment(record).splitlines()
    assert "0 to 8 px" in head and "8 px and more" in head
    assert [line.split(" | ")[1:] for line in lines[:2]] == [
        ["iou", "1.3", "20.0 |"],
        ["nwd", "1.3", "20.0 |"],
    ]
    assert "7 images" in lines[-1] and "0123456" in lines[-1]
