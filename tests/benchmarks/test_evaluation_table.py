import pytest
from rendering.evaluation_table import render_evaluation

pytestmark = pytest.mark.fast


def case(protocol, images, slow, fast, whole):
    rows = {
        "pycocotools": {"seconds": slow, "times_faster": 1.0, "largest_difference": 0.0},
        "hotcoco": {"seconds": fast, "times_faster": slow / fast, "largest_difference": 2e-16},
    }
    fields = {"protocol": protocol, "images": images, "detections_per_image": 9, "classes": 8}
    return {**fields, "rows": rows, "whole_protocol_seconds": whole}


def test_speed():
    record = {
        "cases": {"a": case("aitod", 60, 30.0, 1.5, 3.25), "b": case("coco", 5000, 90.0, 9.0, 9.0)},
        "backends": ["pycocotools 2.0", "hotcoco 1.3"],
        "hardware": {"cpu": "A processor", "cpu_cores": 1},
        "seed": 0,
        "commit": "0123456789",
    }
    lines = render_evaluation(record).splitlines()
    assert lines[0].startswith(
        "|  | 60 images x 9 detections, 8 classes, `aitod` | 5000 images x 9"
    )
    assert lines[2] == "| pycocotools 2.0 | 30.0 s | 90.0 s |"
    assert lines[3] == "| hotcoco 1.3 | 1.5 s (20 x) | 9.0 s (10 x) |"
    assert lines[5] == (
        "The largest difference of any precision is 2e-16. oLRP, which no backend computes, adds "
        "1.8 s to the first."
    )
    assert "1 core of A processor, seed 0, commit 0123456." in lines[6]
